//! Counts refused messages by reason.

use crate::error::Refusal;

macro_rules! refusal_counters {
    ($($field:ident: $refusal:pat,)+) => {
        /// Sealed messages that were refused, by reason. The receiver counts them, since it knows the channel.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each refusal has a field of its name; `Refusal` documents them")]
        pub struct RefusalCounters { $(pub $field: u64,)+ }

        impl RefusalCounters {
            /// Returns each counter with the label of its reason, zeros included.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)+].into_iter()
            }

            /// Counts a refused message.
            pub const fn count(&mut self, refusal: &Refusal) {
                match refusal { $($refusal => self.$field += 1,)+ }
            }
        }

        impl Refusal {
            /// Returns the stable label value of the reason, as in metrics and logs.
            #[must_use]
            pub const fn label(&self) -> &'static str {
                match self { $($refusal => stringify!($field),)+ }
            }
        }
    };
}

refusal_counters! {
    unknown_topic: Refusal::UnknownTopic,
    unreadable: Refusal::Unreadable,
    wrong_topic: Refusal::WrongTopic,
    malformed: Refusal::Malformed,
    own: Refusal::Own,
    not_for_me: Refusal::NotForMe,
    bad_signature: Refusal::BadSignature,
    replayed: Refusal::Replayed,
    bad_certificate: Refusal::BadCertificate,
    bad_confirmation: Refusal::BadConfirmation,
    not_a_member: Refusal::NotAMember(_),
    unknown_sender: Refusal::UnknownSender,
    old_membership: Refusal::OldMembership,
    tunnel_key_taken: Refusal::TunnelKeyTaken,
    party_full: Refusal::Full,
    bad_charter: Refusal::BadCharter,
    old_charter: Refusal::OldCharter,
    secret_missing: Refusal::SecretMissing,
    wrong_secret: Refusal::WrongSecret,
}

/// What happens all the time: echoes, messages for others on channels that everybody receives, repetitions, since all
/// channels are used side by side, and the ends of earlier memberships that are repeated.
const NORMAL: [Refusal; 4] = [Refusal::Own, Refusal::NotForMe, Refusal::Replayed, Refusal::OldMembership];

impl Refusal {
    /// Returns true for what happens all the time and means no fault.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        NORMAL.contains(self)
    }
}

impl RefusalCounters {
    /// Returns the number of all refused messages.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.each().map(|(_, count)| count).sum()
    }

    /// Returns the counters above 0 without those of [normal](Refusal::is_normal) refusals.
    pub fn notable(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let normal = NORMAL.map(|refusal| refusal.label());
        self.each().filter(move |(label, count)| *count > 0 && !normal.contains(label))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rules::Dismissal;

    const REFUSALS: [Refusal; 19] = [
        Refusal::UnknownTopic,
        Refusal::Unreadable,
        Refusal::WrongTopic,
        Refusal::Malformed,
        Refusal::Own,
        Refusal::NotForMe,
        Refusal::BadSignature,
        Refusal::Replayed,
        Refusal::BadCertificate,
        Refusal::BadConfirmation,
        Refusal::NotAMember(Dismissal::Removed),
        Refusal::UnknownSender,
        Refusal::OldMembership,
        Refusal::TunnelKeyTaken,
        Refusal::Full,
        Refusal::BadCharter,
        Refusal::OldCharter,
        Refusal::SecretMissing,
        Refusal::WrongSecret,
    ];

    #[test]
    fn every_refusal_is_counted_under_its_own_label() {
        let mut counters = RefusalCounters::default();
        for (count, refusal) in REFUSALS.iter().enumerate() {
            (0..=count).for_each(|_| counters.count(refusal));
        }
        let expected: Vec<_> = REFUSALS.iter().map(Refusal::label).zip(1..).collect();
        assert_eq!(counters.each().collect::<Vec<_>>(), expected);
        assert_eq!(counters.total(), (1..=19u64).sum::<u64>());
        assert_eq!(REFUSALS.iter().map(Refusal::label).collect::<BTreeSet<_>>().len(), REFUSALS.len());
    }

    #[test]
    fn notable_refusals_are_those_that_are_not_normal() {
        let mut counters = RefusalCounters::default();
        REFUSALS.iter().for_each(|refusal| counters.count(refusal));
        let notable: BTreeSet<_> = counters.notable().map(|(label, _)| label).collect();
        let expected: BTreeSet<_> =
            REFUSALS.iter().filter(|refusal| !refusal.is_normal()).map(Refusal::label).collect();
        assert_eq!(notable, expected);
    }
}
