//! Actions that `igd-next` does not know, or asks differently than we need, over its HTTP.

use std::collections::BTreeMap;

use igd_next::{
    RequestError,
    aio::{Gateway, Provider, tokio::Tokio},
};
use xml::{ParserConfig, reader::XmlEvent};

/// Why an action failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The router says no, with UPnP's error code.
    Code(u16),
    /// Something else.
    Other(String),
}

/// Calls an action of the router's WAN connection service; gives what it returned.
pub(crate) async fn call(
    gateway: &Gateway<Tokio>,
    action: &str,
    arguments: &[(&str, String)],
) -> Result<BTreeMap<String, String>, Failure> {
    let service = &gateway.service_type;
    // All arguments are numbers, addresses and words of ours: nothing to escape.
    let arguments: String =
        arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    let body = format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{action} xmlns:u=\"{service}\">\
         {arguments}</u:{action}></s:Body></s:Envelope>"
    );
    let header = format!("\"{service}#{action}\"");
    let sent = Tokio::send_async(&gateway.to_string(), &header, &body).await;
    let text = sent.map_err(|error: RequestError| Failure::Other(error.to_string()))?;
    let values = values(&text).map_err(Failure::Other)?;
    if let Some(code) = values.get("errorCode") {
        return Err(code
            .trim()
            .parse()
            .map_or_else(|_| Failure::Other("no error code".into()), Failure::Code));
    }
    if !values.contains_key(&format!("{action}Response")) {
        return Err(Failure::Other(format!("no answer to {action}")));
    }
    Ok(values)
}

/// The text of every element of an answer, by name.
fn values(text: &str) -> Result<BTreeMap<String, String>, String> {
    let config = ParserConfig::new().max_entity_expansion_length(1000).max_entity_expansion_depth(2);
    let mut values = BTreeMap::new();
    let (mut current, mut depth) = (String::new(), 0);
    for event in config.create_reader(text.as_bytes()) {
        match event.map_err(|error| error.to_string())? {
            // More elements or a deeper nesting than any action has.
            XmlEvent::StartElement { .. } if values.len() >= 64 => return Err("too many elements".into()),
            XmlEvent::StartElement { name, .. } => {
                depth += 1;
                if depth > 16 {
                    return Err("nested too deeply".into());
                }
                values.insert(name.local_name.clone(), String::new());
                current = name.local_name;
            }
            XmlEvent::Characters(more) => {
                if let Some(value) = values.get_mut(&current).filter(|value| value.len() + more.len() < 1024)
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
    fn values_are_found_by_name() {
        let text = "<s:E xmlns:s=\"x\"><s:Body><GetResponse><NewPort>5</NewPort><NewHost/></GetResponse></s:Body></s:E>";
        let values = values(text).expect("well-formed");
        assert_eq!(values.get("NewPort").map(String::as_str), Some("5"));
        assert_eq!(values.get("NewHost").map(String::as_str), Some(""));
        assert!(values.contains_key("GetResponse"));
    }

    #[test]
    fn broken_answers_are_errors() {
        assert!(values("<a>").is_err());
        assert!(values("").is_err());
    }
}
