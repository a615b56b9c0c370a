//! The validity period of a certificate, which rustls does not check on the server side.
//!
//! In DER (X.690), `Certificate ::= SEQUENCE { tbs SEQUENCE { [0] version, serial, algorithm, issuer, validity SEQUENCE
//! { notBefore Time, notAfter Time }, … }, … }` (RFC 5280, section 4.1).

use std::ops::Range;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A validity period, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Validity {
    /// Returns the validity period of a certificate in DER; `None` if the bytes are not a certificate.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let mut certificate = Reader(certificate).expect(SEQUENCE)?;
        let mut tbs = certificate.expect(SEQUENCE)?;
        if tbs.0.first() == Some(&VERSION) {
            tbs.next()?;
        }
        // Serial number, signature algorithm, issuer.
        (0..3).try_for_each(|_| tbs.next().map(drop))?;
        let mut validity = tbs.expect(SEQUENCE)?;
        Some(Self { not_before: validity.time()?, not_after: validity.time()? })
    }
}

/// The rest of a DER encoding.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads the next value with its tag.
    fn next(&mut self) -> Option<(u8, Reader<'a>)> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        let (length, rest) = match length {
            0..0x80 => (usize::from(*length), rest),
            _ => {
                let (bytes, rest) =
                    rest.split_at_checked(usize::from(length & 0x7f)).filter(|(n, _)| n.len() <= 4)?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, Reader(value)))
    }

    fn expect(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    fn time(&mut self) -> Option<u64> {
        let (tag, Reader(digits)) = self.next()?;
        let number = |range: Range<usize>| std::str::from_utf8(digits.get(range)?).ok()?.parse::<i64>().ok();
        let (year, rest) = match tag {
            // The two digits of the year stand for 1950 to 2049.
            UTC_TIME => (number(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
            GENERALIZED_TIME => (number(0..4)?, 4),
            _ => return None,
        };
        let field = |index: usize| number(rest + 2 * index..rest + 2 * index + 2);
        let days = days_since_1970(year, field(0)?, field(1)?);
        let seconds = days * 86_400 + field(2)? * 3600 + field(3)? * 60 + field(4)?;
        u64::try_from(seconds).ok()
    }
}

/// Converts a date of the Gregorian calendar. Years are counted from March, so that leap days come last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["party.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_encodings_of_time_are_read() {
        let validity = Validity::of(&certificate((2000, 2, 29), (2060, 12, 31))).unwrap();
        assert_eq!(validity, Validity { not_before: 951_782_400, not_after: 2_871_676_800 });
    }

    #[test]
    fn calendar_has_leap_years() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 3, 1) - days_since_1970(2000, 2, 28), 2);
        assert_eq!(days_since_1970(2100, 3, 1) - days_since_1970(2100, 2, 28), 1);
        assert_eq!(days_since_1970(2026, 11, 21), 20_778);
    }

    proptest! {
        #[test]
        fn damaged_certificates_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut der = certificate((2020, 1, 1), (2030, 1, 1));
            let at = at.index(der.len());
            der[at] = byte;
            let _ = Validity::of(&der);
            let _ = Validity::of(&der[..at]);
        }
    }
}
