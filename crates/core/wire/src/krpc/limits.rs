//! What a message may be at most.

/// The maximum length of a datagram in bytes. BEP 32 asks for at most 1,024, but a response with a value of the maximum
/// length exceeds that.
pub const MAX_LEN: usize = 2048;
/// The maximum length of a value in bytes: with its length in front, a storing node may refuse more than 1,000 (BEP 44).
pub const MAX_VALUE: usize = 996;
/// The maximum length of a salt in bytes (BEP 44).
pub const MAX_SALT: usize = 64;
/// The maximum length of a write token in bytes. Known implementations use 4 to 20.
pub const MAX_TOKEN: usize = 128;

/// Why a datagram is no KRPC message, or a message could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KrpcError {
    /// The datagram is longer than [`MAX_LEN`].
    #[error("the message is too long")]
    TooLong,
    /// The datagram ends within a value.
    #[error("the message is truncated")]
    Truncated,
    /// The datagram is not bencoded, or lacks something that its type must have.
    #[error("the message is malformed")]
    Malformed,
}
