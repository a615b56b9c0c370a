//! A client of the W3C WebDriver protocol with the commands that these tests need. Requests are sent from the computer
//! of the lab on which the driver runs.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use natlab::Host;
use serde_json::{Value, json};

/// The key of an element reference in WebDriver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Time limit for a response, so that a hung app fails the test instead of blocking it.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(30);

/// A WebDriver session with the app's window.
#[derive(Debug)]
pub struct Session {
    host: Host,
    port: u16,
    id: String,
}

impl Session {
    /// Makes the driver at `port` start `binary`, and opens a session with its window.
    ///
    /// # Errors
    /// Returns an error if the driver does not accept connections yet, or the app does not start.
    pub fn open(host: &Host, port: u16, binary: &Path, arguments: &[&str]) -> Result<Self> {
        let options = json!({ "binary": binary, "args": arguments });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "webkitgtk:browserOptions": options } } });
        let said = send(host, port, "POST", "/session", &wanted)?;
        let id = said["sessionId"].as_str().context("no session")?.to_owned();
        Ok(Self { host: host.clone(), port, id })
    }

    /// Runs a script in the page, which may be asynchronous, and returns its result.
    ///
    /// # Errors
    /// Returns an error if the script throws.
    pub fn run(&self, script: &str, arguments: &[Value]) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Clicks an element as a user would.
    ///
    /// # Errors
    /// Returns an error if it is covered or gone.
    pub fn click(&self, element: &Value) -> Result<()> {
        self.post(&format!("element/{}/click", id(element)?), &json!({})).map(drop)
    }

    /// Replaces the text of a field.
    ///
    /// # Errors
    /// Returns an error if the field cannot be edited.
    pub fn write(&self, element: &Value, text: &str) -> Result<()> {
        self.post(&format!("element/{}/clear", id(element)?), &json!({}))?;
        self.keys(element, text)
    }

    /// Presses keys in a field.
    ///
    /// # Errors
    /// Returns an error if the field cannot be edited.
    pub fn keys(&self, element: &Value, text: &str) -> Result<()> {
        self.post(&format!("element/{}/value", id(element)?), &json!({ "text": text })).map(drop)
    }

    /// Sets the size of the window.
    ///
    /// # Errors
    /// Returns an error if the window is gone.
    pub fn resize(&self, width: u32, height: u32) -> Result<()> {
        self.post("window/rect", &json!({ "x": 0, "y": 0, "width": width, "height": height })).map(drop)
    }

    /// Returns a screenshot of the page as PNG.
    ///
    /// # Errors
    /// Returns an error if it cannot be taken.
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        let said = send(&self.host, self.port, "GET", &self.path("screenshot"), &Value::Null)?;
        Ok(BASE64_STANDARD.decode(said.as_str().context("no picture")?)?)
    }

    /// Closes the session.
    ///
    /// # Errors
    /// Returns an error if the driver does not respond.
    pub fn close(self) -> Result<()> {
        send(&self.host, self.port, "DELETE", &format!("/session/{}", self.id), &Value::Null).map(drop)
    }

    fn post(&self, what: &str, body: &Value) -> Result<Value> {
        send(&self.host, self.port, "POST", &self.path(what), body)
    }

    fn path(&self, what: &str) -> String {
        format!("/session/{}/{what}", self.id)
    }
}

fn id(element: &Value) -> Result<&str> {
    element[ELEMENT].as_str().with_context(|| format!("{element} is no element"))
}

/// Sends an HTTP/1.1 request, and returns the value of the response.
fn send(host: &Host, port: u16, method: &str, path: &str, body: &Value) -> Result<Value> {
    let mut stream = host.enter(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))??;
    stream.set_read_timeout(Some(DRIVER_TIMEOUT))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let answer = read(&mut stream).with_context(|| format!("{method} {path}"))?;
    let answer: Value = serde_json::from_slice(&answer).with_context(|| format!("{method} {path}"))?;
    let value = answer["value"].clone();
    if let Some(error) = value["error"].as_str() {
        bail!("{method} {path}: {error}: {}", value["message"].as_str().unwrap_or_default());
    }
    Ok(value)
}

/// Reads the body of a response, whose length the header gives.
fn read(stream: &mut TcpStream) -> Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::new();
    let mut part = [0; 64 * 1024];
    loop {
        if let Some(at) = bytes.windows(END.len()).position(|window| window == END) {
            let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.context("no length")?.trim().parse()?;
            let body = at + END.len();
            if bytes.len() >= body + length {
                return Ok(bytes[body..body + length].to_vec());
            }
        }
        let count = stream.read(&mut part)?;
        ensure!(count > 0, "the driver hung up");
        bytes.extend(&part[..count]);
    }
}
