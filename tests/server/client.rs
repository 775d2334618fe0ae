//! A client of the least kind, and a check of JSON against a schema.

use serde_json::Value as Json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What a refusal says.
    pub fn detail(&self) -> String {
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        problem["detail"].as_str().unwrap().to_owned()
    }
}

pub fn get(address: SocketAddr, path: &str) -> Reply {
    request(address, "GET", path, &[], "")
}

pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();

    let host =
        if headers.iter().any(|header| header.starts_with("Host: ")) { "" } else { "Host: localhost\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n{headers}");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Where `value` is not as `schema` has it; the keywords that the description uses, and a panic for any other.
pub fn faults(document: &Json, schema: &Json, value: &Json, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').unwrap();
        return faults(document, document.pointer(pointer).expect(name), value, at);
    }
    let mut found = Vec::new();
    for (keyword, wanted) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "type" => {
                let types: Vec<&str> = match wanted {
                    Json::Array(types) => types.iter().map(|one| one.as_str().unwrap()).collect(),
                    one => vec![one.as_str().unwrap()],
                };
                if !types.iter().any(|one| is_of(one, value)) {
                    found.push(format!("{at}: {value} is no {types:?}"));
                }
            }
            "enum" if !wanted.as_array().unwrap().contains(value) => found.push(format!("{at}: {value}")),
            "required" if value.is_object() => {
                let missing = wanted
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|name| value.get(name.as_str().unwrap()).is_none());
                found.extend(missing.map(|name| format!("{at}: no {name}")));
            }
            "properties" if value.is_object() => {
                for (name, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        found.extend(faults(document, schema, value, &format!("{at}.{name}")));
                    }
                }
            }
            "additionalProperties" if value.is_object() => {
                let known = schema["properties"].as_object();
                let is_known = |name: &str| known.is_some_and(|known| known.contains_key(name));
                for (name, value) in value.as_object().unwrap().iter().filter(|(name, _)| !is_known(name)) {
                    match wanted {
                        Json::Bool(false) => found.push(format!("{at}: {name} is not described")),
                        schema => found.extend(faults(document, schema, value, &format!("{at}.{name}"))),
                    }
                }
            }
            "items" if value.is_array() => {
                for (n, value) in value.as_array().unwrap().iter().enumerate() {
                    found.extend(faults(document, wanted, value, &format!("{at}[{n}]")));
                }
            }
            "enum" | "required" | "properties" | "additionalProperties" | "items" | "description" => {}
            other => panic!("{other} is not checked"),
        }
    }
    found
}

fn is_of(kind: &str, value: &Json) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is not checked"),
    }
}

/// Whether a reply is as its path is described.
pub fn check(document: &Json, reply: &Reply, described: &Json, path: &str) {
    let response = &described["responses"][reply.status.to_string()];
    assert!(response.is_object(), "{path}: {} is not described", reply.status);
    for (kind, content) in response["content"].as_object().into_iter().flatten() {
        assert!(reply.head.contains(&**kind), "{path}: {reply:?}");
        assert_eq!(faults(document, &content["schema"], &reply.json(), path), Vec::<String>::new());
    }
}
