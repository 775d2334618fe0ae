//! As much of an HTTP server as the tests need.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method and path.
    pub line: String,
    /// What is behind `Authorization:`.
    pub authorization: Option<String>,
    pub body: String,
}

/// Serves on a port of its own for the life of the process: answers each request with a status and a body.
pub fn serve(answer: impl Fn(&Request) -> (u16, String) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            // A client that goes away is its own affair.
            let _ = connection.and_then(|connection| exchange(connection, &answer));
        }
    });
    address
}

fn exchange(connection: TcpStream, answer: &impl Fn(&Request) -> (u16, String)) -> std::io::Result<()> {
    let mut reader = BufReader::new(&connection);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let line = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { line, authorization: None, body: String::new() };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    reader.take(length).read_to_string(&mut request.body)?;
    let (status, body) = answer(&request);
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    write!(
        &connection,
        "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
