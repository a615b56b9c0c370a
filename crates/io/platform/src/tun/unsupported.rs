//! Systems without a device yet: creating one fails, and nothing else can be called.

use std::{convert::Infallible, io};

use super::{TunConfig, TunError, TunReads, TunWrites};

/// A party's network device, which cannot exist on this system yet.
#[derive(Debug)]
pub struct TunDevice(Infallible);

impl TunDevice {
    /// Fails.
    ///
    /// # Errors
    /// [`TunError::Unsupported`], always.
    pub async fn create(_config: &TunConfig) -> Result<Self, TunError> {
        Err(TunError::Unsupported)
    }

    /// Returns the device's name.
    #[must_use]
    pub const fn name(&self) -> &str {
        match self.0 {}
    }

    /// Returns the device's interface index.
    #[must_use]
    pub const fn index(&self) -> u32 {
        match self.0 {}
    }

    /// Waits for packets from local programs.
    ///
    /// # Errors
    /// Never returns.
    pub async fn recv(&self, _reads: &mut TunReads) -> io::Result<()> {
        match self.0 {}
    }

    /// Writes packets to local programs.
    ///
    /// # Errors
    /// Never returns.
    pub async fn send(&self, _writes: &mut TunWrites) -> io::Result<()> {
        match self.0 {}
    }
}
