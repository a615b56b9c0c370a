//! Decides how to answer an announcement, so that members that missed a change catch up.
//!
//! Announcements show which charter and which party secret their sender has. A device that is ahead sends what the
//! other lacks. A device that is behind announces itself to the other, which shows what it lacks. The rules below never
//! let two devices answer each other for ever: an answer is sent only towards a device that is behind, or by one that
//! is.

use partyline_wire::membership::Stamp;

use crate::rules::Dismissal;

/// What an announcement shows, compared with what this device has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    /// Stamp of the charter in force here.
    pub(crate) own: Option<Stamp>,
    /// Stamp of the charter that the sender goes by.
    pub(crate) theirs: Option<Stamp>,
    /// Whether the sender's certificate counts here.
    pub(crate) judged: Result<(), Dismissal>,
    /// True if this device has the party secret that the charter commits to.
    pub(crate) has_secret: bool,
    /// True if the sender has it.
    pub(crate) they_have_secret: bool,
    /// True if this device has a confirmation of the sender's certificate that the sender lacks.
    pub(crate) lacks_confirmation: bool,
}

/// The answer to an announcement, or its absence, with the reason that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    /// The charter, with the sender's confirmation if this device has it.
    Charter(&'static str),
    /// The party secret in force, with the charter.
    Rekey(&'static str),
    /// This device's own announcement, which shows what it lacks.
    Announcement(&'static str),
}

impl Comparison {
    pub(crate) fn reply(&self) -> Reply {
        let behind = self.theirs < self.own;
        if self.theirs > self.own {
            return Reply::Announcement("sender has a newer charter");
        }
        if let Err(dismissal) = self.judged {
            // A removed device is informed once its announcement shows that it does not know. An ended invite is left to
            // the device's own clock.
            let inform = behind && dismissal != Dismissal::InviteExpired;
            return if inform {
                Reply::Charter("sender does not know that it was dismissed")
            } else {
                Reply::Nothing
            };
        }
        match (self.has_secret, self.they_have_secret) {
            (true, false) => Reply::Rekey("sender lacks the secret in force"),
            // A device that lacks the secret must not ask one that is behind, which would ask back without end.
            _ if behind => Reply::Charter("sender has an older charter"),
            (false, true) => Reply::Announcement("this device lacks the secret in force"),
            _ if self.own.is_some() && self.lacks_confirmation => {
                Reply::Charter("sender lacks its confirmation")
            }
            _ => Reply::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn stamp(version: u64) -> Option<Stamp> {
        Some(Stamp { version, amendment: 0, digest: [0; 8] })
    }

    const SAME: Comparison = Comparison {
        own: stamp(2),
        theirs: stamp(2),
        judged: Ok(()),
        has_secret: true,
        they_have_secret: true,
        lacks_confirmation: false,
    };

    #[test]
    fn members_with_the_same_knowledge_do_not_answer_each_other() {
        assert_eq!(SAME.reply(), Reply::Nothing);
        let neither =
            Comparison { own: None, theirs: None, has_secret: false, they_have_secret: false, ..SAME };
        assert_eq!(neither.reply(), Reply::Nothing);
        let neither_secret = Comparison { has_secret: false, they_have_secret: false, ..SAME };
        assert_eq!(neither_secret.reply(), Reply::Nothing);
    }

    #[test]
    fn device_that_is_behind_gets_what_it_lacks() {
        let reply = |comparison: Comparison| comparison.reply();
        assert!(matches!(reply(Comparison { theirs: stamp(1), ..SAME }), Reply::Charter(_)));
        assert!(matches!(reply(Comparison { theirs: None, ..SAME }), Reply::Charter(_)));
        assert!(matches!(reply(Comparison { they_have_secret: false, ..SAME }), Reply::Rekey(_)));
        assert!(matches!(reply(Comparison { lacks_confirmation: true, ..SAME }), Reply::Charter(_)));
    }

    #[test]
    fn device_that_is_behind_itself_announces_itself() {
        assert!(matches!(Comparison { theirs: stamp(3), ..SAME }.reply(), Reply::Announcement(_)));
        assert!(matches!(Comparison { has_secret: false, ..SAME }.reply(), Reply::Announcement(_)));
    }

    #[test]
    fn two_devices_never_ask_each_other() {
        let stamps = [None, stamp(1), stamp(2)];
        for (own, theirs) in stamps.iter().flat_map(|own| stamps.map(|theirs| (*own, theirs))) {
            for (has, they) in [(true, true), (true, false), (false, true), (false, false)] {
                let here = Comparison { own, theirs, has_secret: has, they_have_secret: they, ..SAME };
                // The secret in force is that of the newer charter; without the same charter neither side knows it.
                let there =
                    Comparison { own: theirs, theirs: own, has_secret: they, they_have_secret: has, ..SAME };
                let ask = |comparison: Comparison| matches!(comparison.reply(), Reply::Announcement(_));
                assert!(!(ask(here) && ask(there)), "{here:?}");
            }
        }
    }

    #[test]
    fn dismissed_devices_are_informed_once_and_never_get_the_secret() {
        for dismissal in [Dismissal::Removed, Dismissal::InviteRevoked, Dismissal::NotACoOwner] {
            let dismissed = Comparison { judged: Err(dismissal), they_have_secret: false, ..SAME };
            assert_eq!(dismissed.reply(), Reply::Nothing, "it has the charter that says so");
            let unaware = Comparison { theirs: stamp(1), ..dismissed };
            assert!(matches!(unaware.reply(), Reply::Charter(_)));
        }
        let expired = Comparison { judged: Err(Dismissal::InviteExpired), theirs: stamp(1), ..SAME };
        assert_eq!(expired.reply(), Reply::Nothing);
    }
}
