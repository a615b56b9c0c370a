//! Bodies of HTTP responses: a text in one piece, or nothing.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};

/// The body of a response.
#[derive(Debug)]
pub(crate) struct Page(Option<Bytes>);

impl Page {
    pub(crate) const fn empty() -> Self {
        Self(None)
    }

    /// Returns a response in plain text.
    pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Self> {
        Self::response(status, "text/plain; charset=utf-8", text.into())
    }

    /// Returns a successful response in HTML.
    pub(crate) fn html(text: impl Into<Bytes>) -> Response<Self> {
        Self::response(StatusCode::OK, "text/html; charset=utf-8", text.into())
    }

    fn response(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Self> {
        let mut response = Response::new(Self(Some(bytes)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
