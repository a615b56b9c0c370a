//! Calls SOAP actions that `igd-next` does not know, or calls with other arguments than needed, over its HTTP client.

use std::collections::BTreeMap;

use igd_next::{
    RequestError,
    aio::{Gateway, Provider, tokio::Tokio},
};
use tracing::trace;
use xml::{ParserConfig, reader::XmlEvent};

/// Bounds of a response: more elements, a deeper nesting and longer texts (in bytes) than any action has.
const MAX_ELEMENTS: usize = 64;
const MAX_DEPTH: u32 = 16;
const MAX_TEXT: usize = 1024;

/// Why an action failed.
#[derive(Debug)]
pub(crate) enum ActionError {
    /// The router refused, with UPnP's error code.
    Code(u16),
    /// The request failed, or the response is not valid.
    Other(String),
}

/// Calls an action of the router's WAN connection service and returns its output arguments.
///
/// # Errors
/// If the router refuses, cannot be reached, or sends something else than the action's response.
pub(crate) async fn call(
    gateway: &Gateway<Tokio>,
    action: &str,
    arguments: &[(&str, String)],
) -> Result<BTreeMap<String, String>, ActionError> {
    let service = &gateway.service_type;
    // All arguments are numbers, addresses and constants: nothing to escape.
    let arguments: String =
        arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    let body = format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{action} xmlns:u=\"{service}\">\
         {arguments}</u:{action}></s:Body></s:Envelope>"
    );
    let header = format!("\"{service}#{action}\"");
    let sent = Tokio::send_async(&gateway.to_string(), &header, &body).await;
    let text = sent.map_err(|error: RequestError| ActionError::Other(error.to_string()))?;
    let values = values(&text).map_err(ActionError::Other)?;
    trace!(action, error_code = values.get("errorCode"), "action called");
    if let Some(code) = values.get("errorCode") {
        return Err(code
            .trim()
            .parse()
            .map_or_else(|_| ActionError::Other("no error code".into()), ActionError::Code));
    }
    if !values.contains_key(&format!("{action}Response")) {
        return Err(ActionError::Other(format!("no answer to {action}")));
    }
    Ok(values)
}

/// Returns the text of every element of a response, by name.
fn values(text: &str) -> Result<BTreeMap<String, String>, String> {
    let config = ParserConfig::new().max_entity_expansion_length(1000).max_entity_expansion_depth(2);
    let mut values = BTreeMap::new();
    let (mut current, mut depth) = (String::new(), 0);
    for event in config.create_reader(text.as_bytes()) {
        match event.map_err(|error| error.to_string())? {
            XmlEvent::StartElement { .. } if values.len() >= MAX_ELEMENTS => {
                return Err("too many elements".into());
            }
            XmlEvent::StartElement { name, .. } => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err("nested too deeply".into());
                }
                values.insert(name.local_name.clone(), String::new());
                current = name.local_name;
            }
            XmlEvent::Characters(more) => {
                if let Some(value) =
                    values.get_mut(&current).filter(|value| value.len() + more.len() < MAX_TEXT)
                {
                    *value += &more;
                }
            }
            XmlEvent::EndElement { .. } => depth -= 1,
            _ => {}
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::values;

    #[test]
    fn output_arguments_are_found_by_name() {
        let text = "<s:E xmlns:s=\"x\"><s:Body><GetResponse><NewPort>5</NewPort><NewHost/></GetResponse></s:Body></s:E>";
        let values = values(text).expect("well-formed");
        assert_eq!(values.get("NewPort").map(String::as_str), Some("5"));
        assert_eq!(values.get("NewHost").map(String::as_str), Some(""));
        assert!(values.contains_key("GetResponse"));
    }

    #[test]
    fn malformed_responses_are_errors() {
        assert!(values("<a>").is_err());
        assert!(values("").is_err());
    }
}
