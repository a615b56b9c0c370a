//! Why a router did not map a port.

use std::io::{self, ErrorKind};

use crate::Protocol;

/// The longest text of an error that is shown, in characters.
const MAX_SUMMARY_CHARS: usize = 200;

/// Why a router did not map a port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("no router answered")]
    NoResponse,
    /// The router says so, or its port for the protocol is closed.
    #[error("the router does not speak {0}")]
    NotSupported(Protocol),
    #[error("no default gateway is known")]
    NoGateway,
    #[error("this network has no global IPv6 address")]
    NoIpv6Address,
    #[error("the router refused: {reason}")]
    Refused {
        /// The protocol's result or error code, where the router sent one.
        code: Option<u16>,
        reason: String,
    },
    /// The router understood a PCP request, but maps no ports, or none for this computer. It may still keep single
    /// flows (PEER).
    #[error("the router refused: {reason}")]
    Denied {
        /// The result code of RFC 6887 section 7.4.
        code: u8,
        reason: &'static str,
    },
    #[error("the router's answer makes no sense: {0}")]
    InvalidResponse(String),
    #[error("{}", explain(.0))]
    Network(#[from] io::Error),
}

impl MappingError {
    /// A refusal without a code.
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { code: None, reason: reason.into() }
    }

    /// A refusal with the protocol's result or error code.
    pub(crate) fn refused_with(code: u16, reason: impl Into<String>) -> Self {
        Self::Refused { code: Some(code), reason: reason.into() }
    }

    /// Returns the result or error code that the router sent, if any.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Denied { code, .. } => Some((*code).into()),
            _ => None,
        }
    }

    /// Returns the error as one line of bounded length: a router may put any text into its answer.
    pub(crate) fn summary(&self) -> String {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = self.to_string().chars().map(printable).take(MAX_SUMMARY_CHARS).collect();
        text.trim_end().to_owned()
    }
}

/// Explains a system error in terms of the router.
fn explain(error: &io::Error) -> String {
    use ErrorKind as E;
    let words = match error.kind() {
        E::ConnectionRefused => "the router does not answer where it said that it would",
        E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::UnexpectedEof => {
            "the router broke off in the middle"
        }
        E::NetworkUnreachable | E::HostUnreachable | E::NetworkDown => "there is no way to the router",
        E::AddrNotAvailable => "this computer does not have its address on that network any more",
        E::TimedOut => "no router answered",
        E::PermissionDenied => "this computer's firewall does not let the router be asked",
        _ => return format!("the network failed: {error}"),
    };
    words.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_error_is_explained_without_its_number() {
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable]
        {
            let text = MappingError::from(io::Error::from(kind)).summary();
            assert!(text.contains("router") || text.contains("this computer"), "{text}");
        }
        assert_eq!(MappingError::from(io::Error::from_raw_os_error(111)).summary().find("os error"), None);
        let unsupported = MappingError::NotSupported(Protocol::Pcp);
        assert_eq!(unsupported.summary(), "the router does not speak PCP");
    }

    #[test]
    fn long_text_of_a_router_becomes_one_bounded_line() {
        let summary = MappingError::refused("x\n".repeat(5000)).summary();
        assert!(summary.len() <= MAX_SUMMARY_CHARS && !summary.contains('\n'), "{summary}");
    }

    #[test]
    fn only_refusals_by_the_router_have_a_code() {
        assert_eq!(MappingError::refused_with(718, "taken").code(), Some(718));
        assert_eq!(MappingError::Denied { code: 2, reason: "no" }.code(), Some(2));
        assert_eq!(MappingError::refused("port 0").code(), None);
        assert_eq!(MappingError::NoResponse.code(), None);
    }
}
