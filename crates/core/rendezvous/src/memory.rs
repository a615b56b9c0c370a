//! How many bytes of clients the server holds.

use crate::limits::Limit;

/// The bytes of records and messages held, and how many may be.
#[derive(Debug)]
pub(crate) struct MemoryQuota {
    used: usize,
    limit: usize,
}

impl MemoryQuota {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Fails if holding `more` bytes in place of `instead_of` would exceed the limit.
    pub(crate) const fn check(&self, more: usize, instead_of: usize) -> Result<(), Limit> {
        if self.used - instead_of + more > self.limit { Err(Limit::HeldBytes) } else { Ok(()) }
    }

    pub(crate) const fn add(&mut self, bytes: usize) {
        self.used += bytes;
    }

    pub(crate) const fn release(&mut self, bytes: usize) {
        self.used -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_counts_what_is_replaced() {
        let mut quota = MemoryQuota::new(10);
        assert_eq!(quota.check(11, 0), Err(Limit::HeldBytes));
        quota.add(8);
        assert_eq!((quota.check(3, 0), quota.check(3, 1)), (Err(Limit::HeldBytes), Ok(())));
        quota.release(8);
        assert_eq!(quota.used(), 0);
    }
}
