//! Bencoding (BEP 3), read in place.

use super::limits::KrpcError;

/// The maximum depth of nested lists and dictionaries. KRPC needs three.
const MAX_DEPTH: u32 = 8;

/// Reads bencoded values from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns the first byte of the next value, which tells its type.
    pub(super) fn peek(&self) -> Result<u8, KrpcError> {
        self.rest.first().copied().ok_or(KrpcError::Truncated)
    }

    /// Consumes `byte` if it is next.
    pub(super) fn accept(&mut self, byte: u8) -> Result<bool, KrpcError> {
        let accepted = self.peek()? == byte;
        if accepted {
            self.rest = &self.rest[1..];
        }
        Ok(accepted)
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), KrpcError> {
        if self.accept(byte)? { Ok(()) } else { Err(KrpcError::Malformed) }
    }

    pub(super) fn string(&mut self) -> Result<&'a [u8], KrpcError> {
        let digits = self.until(b':')?;
        let len = decimal(digits).and_then(|len| usize::try_from(len).ok()).ok_or(KrpcError::Malformed)?;
        let (string, rest) = self.rest.split_at_checked(len).ok_or(KrpcError::Truncated)?;
        self.rest = rest;
        Ok(string)
    }

    pub(super) fn integer(&mut self) -> Result<i64, KrpcError> {
        self.expect(b'i')?;
        let digits = self.until(b'e')?;
        match digits.strip_prefix(b"-") {
            Some(magnitude) => decimal(magnitude)
                .filter(|magnitude| *magnitude != 0)
                .and_then(|magnitude| 0_i64.checked_sub_unsigned(magnitude)),
            None => decimal(digits).and_then(|magnitude| magnitude.try_into().ok()),
        }
        .ok_or(KrpcError::Malformed)
    }

    /// Consumes the next value whatever it is.
    pub(super) fn skip(&mut self) -> Result<(), KrpcError> {
        let mut depth = 0_u32;
        loop {
            match self.peek()? {
                b'i' => drop(self.integer()?),
                b'l' | b'd' => {
                    self.rest = &self.rest[1..];
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(KrpcError::Malformed);
                    }
                }
                b'e' if depth > 0 => {
                    self.rest = &self.rest[1..];
                    depth -= 1;
                }
                _ => drop(self.string()?),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Returns the string that is next, or `None` after skipping a value of another type.
    pub(super) fn string_or_skip(&mut self) -> Result<Option<&'a [u8]>, KrpcError> {
        if self.peek()?.is_ascii_digit() { self.string().map(Some) } else { self.skip().map(|()| None) }
    }

    /// Returns the integer that is next, or `None` after skipping a value of another type.
    pub(super) fn integer_or_skip(&mut self) -> Result<Option<i64>, KrpcError> {
        if self.peek()? == b'i' { self.integer().map(Some) } else { self.skip().map(|()| None) }
    }

    /// Reads a dictionary: calls `entry` with each key and a reader that is to consume the value.
    pub(super) fn dictionary(
        &mut self,
        mut entry: impl FnMut(&'a [u8], &mut Self) -> Result<(), KrpcError>,
    ) -> Result<(), KrpcError> {
        self.expect(b'd')?;
        while !self.accept(b'e')? {
            let key = self.string()?;
            entry(key, self)?;
        }
        Ok(())
    }

    /// Returns the bytes before the next `end`, which a length or an integer has within its 20 digits, and consumes both.
    fn until(&mut self, end: u8) -> Result<&'a [u8], KrpcError> {
        const MAX_DIGITS: usize = 20;
        let position = self.rest.iter().take(MAX_DIGITS + 1).position(|byte| *byte == end);
        let position = position.ok_or(if self.rest.len() > MAX_DIGITS {
            KrpcError::Malformed
        } else {
            KrpcError::Truncated
        })?;
        let (digits, rest) = self.rest.split_at(position);
        self.rest = &rest[1..];
        Ok(digits)
    }
}

/// Returns the number, or `None` for anything but its canonical digits.
fn decimal(digits: &[u8]) -> Option<u64> {
    let canonical = match digits {
        [] => false,
        [b'0'] => true,
        [b'0', ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    let text = std::str::from_utf8(digits).ok()?;
    if canonical { text.parse().ok() } else { None }
}

pub(super) fn push_string(bytes: &mut Vec<u8>, string: &[u8]) {
    bytes.extend_from_slice(string.len().to_string().as_bytes());
    bytes.push(b':');
    bytes.extend_from_slice(string);
}

pub(super) fn push_integer(bytes: &mut Vec<u8>, integer: i64) {
    bytes.push(b'i');
    bytes.extend_from_slice(integer.to_string().as_bytes());
    bytes.push(b'e');
}
