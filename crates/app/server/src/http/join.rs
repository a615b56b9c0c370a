//! The page behind `https://<server>/join#<invite>`.
//!
//! Browsers do not send what follows the `#`, so the server never sees an invite. The page's script reads it and passes it
//! to the app, or says what is wrong with it; links that were mangled so that the code lies in the path or query lead here too.
//! Its Content Security Policy names that script and the style by their hashes and forbids everything else, so
//! that the page cannot send the invite anywhere even if an attacker managed to change it.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    Response,
    header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS},
};
use sha2::{Digest, Sha256};

use super::Page;

/// The path of the page.
pub(super) const PATH: &str = "/join";

const PAGE: &str = include_str!("join.html");

static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let (script, style) = (hash("<script>", "</script>")?, hash("<style>", "</style>")?);
    let policy = format!(
        "default-src 'none'; script-src {script}; style-src {style}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).ok()
});

/// Returns true for the path of the page, with whatever came between it and the `#` on the way: a slash, the code itself, or
/// a `#` that was encoded.
pub(super) fn is_path(path: &str) -> bool {
    let (start, rest) = path.split_at_checked(PATH.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(PATH) && !rest.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Returns the page with its policy.
pub(super) fn page() -> Response<Page> {
    let mut response = Page::html(PAGE);
    let headers = response.headers_mut();
    // If the policy cannot be built, the script must not run.
    let policy = POLICY.clone().unwrap_or(HeaderValue::from_static("default-src 'none'"));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

fn hash(open: &str, close: &str) -> Option<String> {
    let (_, rest) = PAGE.split_once(open)?;
    let (text, _) = rest.split_once(close)?;
    Some(format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_found_under_mangled_paths() {
        for path in ["/join", "/join/", "/JOIN", "/join/PLY1", "/join%23PLY1", "/join.", "/join)"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["/", "/joi", "/joined", "/v1", "/x/join", ""] {
            assert!(!is_path(path), "{path}");
        }
    }

    #[test]
    fn policy_names_the_only_script_and_style_of_the_page() {
        let policy = page().headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!policy.contains("unsafe"));
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
    }

    #[test]
    fn page_loads_and_sends_nothing() {
        for word in [
            "src=",
            "url(",
            "fetch(",
            "XMLHttpRequest",
            "sendBeacon",
            "http://",
            "https://",
            " style=",
            " onclick",
        ] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
