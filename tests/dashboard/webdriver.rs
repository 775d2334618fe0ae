//! A browser, by the W3C's WebDriver over plain HTTP: the few commands that the tests need, and what the page has done behind their backs.

use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longer than anything takes that is not broken.
const DEADLINE_MS: u64 = 60_000;

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const RIGHT: &str = "\u{e014}";

/// One browser at a time: they are large.
static TURN: Mutex<()> = Mutex::new(());

/// A page in a browser. Ends with an error if the page has logged one, or has asked another host for something.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Errors of the console that are what a test is about.
    expected: Vec<&'static str>,
    _turn: MutexGuard<'static, ()>,
}

/// A browser, if this machine has one or one can be installed. Whoever must have one (`CI`, with root) gets an error instead of `None`.
pub fn browser() -> Option<Browser> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/browser");
    let looked = Command::new(&script).output().unwrap();
    if looked.status.success() {
        return Some(Browser::start());
    }
    let why = String::from_utf8_lossy(&looked.stderr).into_owned();
    let has_root =
        std::fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true") && has_root;
    assert!(!must, "the dashboard has to be tested here, and there is no browser: {why}");
    // Not by a macro: what those write is swallowed when a test passes.
    let _ =
        writeln!(std::io::stderr(), "SKIPPED, the dashboard is not tested on this machine: {}", why.trim());
    None
}

impl Browser {
    fn start() -> Browser {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.by_ref().map(Result::unwrap).find_map(|line| {
            let port = line.split_once("successfully on port ")?.1;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver says its port")));
        // What it says later must not fill the pipe.
        std::thread::spawn(move || said.for_each(drop));
        let mut browser =
            Browser { driver, address, session: String::new(), expected: Vec::new(), _turn: turn };
        let options = json!({ "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"] });
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            "timeouts": { "script": DEADLINE_MS + 5000 },
        });
        let session =
            browser.command("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    fn command(&self, method: &str, path: &str, body: &Json) -> Json {
        let (status, answer) = self.try_command(method, path, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["value"].clone()
    }

    fn try_command(&self, method: &str, path: &str, body: &Json) -> (u16, Json) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(2 * DEADLINE_MS))).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let (path, length) = (format!("{}{path}", self.session), body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        // The driver keeps connections open, whatever it is asked: an answer is as long as it says.
        let mut reply = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reply.read_line(&mut line).unwrap();
            line
        };
        let status = line().split(' ').nth(1).unwrap().parse().unwrap();
        let headers =
            std::iter::from_fn(|| Some(line().to_ascii_lowercase()).filter(|line| line.trim() != ""));
        let length =
            headers.filter_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).last();
        let mut body = vec![0; length.expect("a length")];
        reply.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Lets a test be about an error of the console.
    pub fn expect(&mut self, part: &'static str) {
        self.expected.push(part);
    }

    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    pub fn reload(&self) {
        self.command("POST", "/refresh", &json!({}));
    }

    /// The value of an expression.
    pub fn value(&self, expression: &str) -> Json {
        self.command(
            "POST",
            "/execute/sync",
            &json!({ "script": format!("return {expression}"), "args": [] }),
        )
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Json {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits in the page until an expression is true of it, and answers its value.
    pub fn until(&self, expression: &str) -> Json {
        let script = format!(
            "const done = arguments[0]; const end = performance.now() + {DEADLINE_MS};
             const look = () => {{
               let value = null;
               try {{ value = {expression}; }} catch (error) {{ value = null; }}
               if (value) done(value); else if (performance.now() > end) done(null); else setTimeout(look, 20);
             }};
             look();"
        );
        let value = self.command("POST", "/execute/async", &json!({ "script": script, "args": [] }));
        let page = || self.value("document.body.innerText");
        assert!(!value.is_null(), "never came true: {expression}\n{}", page().as_str().unwrap());
        value
    }

    /// Presses keys, one after the other.
    pub fn press(&self, keys: &[&str]) {
        let steps: Vec<Json> = keys
            .iter()
            .flat_map(|key| {
                [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": steps });
        self.command("POST", "/actions", &json!({ "actions": [keyboard] }));
    }

    pub fn write(&self, text: &str) {
        let letters: Vec<String> = text.chars().map(String::from).collect();
        self.press(&letters.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Goes from control to control, as with the tab key, until the one in focus has this name.
    pub fn tab_to(&self, name: &str) {
        let in_focus = "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText ?? '').trim()";
        let mut seen = Vec::new();
        for _ in 0..80 {
            self.press(&[TAB]);
            let now = self.value(in_focus);
            if now == name {
                return;
            }
            seen.push(now);
        }
        panic!("the keyboard does not come to `{name}`, but to {seen:?}");
    }

    /// A command of Chromium's own protocol.
    pub fn chromium(&self, command: &str, params: &Json) -> Json {
        self.command("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// Has the size of a screen, and its preference for light or dark.
    pub fn screen(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.chromium("Emulation.setEmulatedMedia", &scheme);
    }

    /// Ends the session, with what the page has done on its own.
    pub fn end(self, base: &str) {
        let logged = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let is_expected =
            |entry: &Json| self.expected.iter().any(|part| entry["message"].as_str().unwrap().contains(part));
        let errors: Vec<&Json> =
            logged.as_array().unwrap().iter().filter(|entry| !is_expected(entry)).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        let events = self.command("POST", "/se/log", &json!({ "type": "performance" }));
        let mut asked = Vec::new();
        for event in events.as_array().unwrap() {
            let event: Json = serde_json::from_str(event["message"].as_str().unwrap()).unwrap();
            if event["message"]["method"] == "Network.requestWillBeSent" {
                asked.push(event["message"]["params"]["request"]["url"].as_str().unwrap().to_owned());
            }
        }
        assert!(asked.iter().any(|url| url.ends_with("/v1/events")), "{asked:?}");
        let foreign: Vec<_> =
            asked.iter().filter(|url| !url.starts_with(base) && !url.starts_with("data:")).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.try_command("DELETE", "", &Json::Null);
        }
        // With it goes the browser that it has started.
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
