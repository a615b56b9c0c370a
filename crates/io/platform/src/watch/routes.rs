//! Notices on macOS and Windows: changes of routes, which every change of an address causes.

use std::{fmt, io};

use route_manager::{AsyncRouteListener, AsyncRouteManager};

pub(super) struct Notices(AsyncRouteListener);

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}

impl Notices {
    pub(super) fn new() -> io::Result<Self> {
        AsyncRouteManager::listener().map(Self)
    }

    pub(super) async fn next(&mut self) -> io::Result<()> {
        self.0.listen().await.map(|_| ())
    }
}
