//! Counters for metrics.

/// Declares a struct of counters with one public field per label value, and `each` to export them.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)*
        }

        impl $name {
            /// Returns each counter with its label, which stays the same between versions.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }
        }
    };
}

counters! {
    /// A number for each method.
    #[expect(missing_docs, reason = "the names are those of the methods")]
    MethodCounters {
        find_node,
        get,
        put,
    }
}

counters! {
    /// Datagrams that were dropped, by reason; see [`Drop`].
    DropCounters {
        /// No KRPC message, or one that lacks something.
        malformed,
        /// A query from another node: this client answers none.
        query,
        /// A response to no query, or a second one, or one that came too late.
        unknown_transaction,
        /// A response from another address than the query went to.
        wrong_source,
    }
}

counters! {
    /// Lookups that ended, by what was asked for and by outcome.
    LookupCounters {
        /// Lookups and polls that some node answered.
        answered,
        /// Lookups and polls that no node answered.
        unanswered,
        /// Items that were stored at least once.
        stored,
        /// Items that were not stored anywhere.
        not_stored,
    }
}

/// Everything that is counted. Nothing resets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Queries sent, by method.
    pub queries: MethodCounters,
    /// Responses that were used, by method.
    pub responses: MethodCounters,
    /// Error responses, by method.
    pub errors: MethodCounters,
    /// Queries that were not answered in time, by method.
    pub timeouts: MethodCounters,
    /// Lookups that ended, by outcome.
    pub lookups: LookupCounters,
    /// Items whose signature was invalid.
    pub invalid_items: u64,
    /// Datagrams that were dropped, by reason.
    pub dropped: DropCounters,
}

impl Counters {
    /// Returns the counters by method, each with its name.
    pub fn by_method(&self) -> impl Iterator<Item = (&'static str, &MethodCounters)> {
        [
            ("queries", &self.queries),
            ("responses", &self.responses),
            ("errors", &self.errors),
            ("timeouts", &self.timeouts),
        ]
        .into_iter()
    }
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// It is no KRPC message, or lacks something that its type must have.
    Malformed,
    /// It is a query from another node: this client answers none.
    Query,
    /// It responds to no query, is a second response, or came too late.
    UnknownTransaction,
    /// It comes from another address than the query went to.
    WrongSource,
}

impl Drop {
    /// Returns the value of the `reason` label in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Query => "query",
            Self::UnknownTransaction => "unknown_transaction",
            Self::WrongSource => "wrong_source",
        }
    }
}

impl DropCounters {
    pub(crate) const fn count(&mut self, reason: Drop) {
        let counter = match reason {
            Drop::Malformed => &mut self.malformed,
            Drop::Query => &mut self.query,
            Drop::UnknownTransaction => &mut self.unknown_transaction,
            Drop::WrongSource => &mut self.wrong_source,
        };
        *counter = counter.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_under_its_label() {
        for reason in [Drop::Malformed, Drop::Query, Drop::UnknownTransaction, Drop::WrongSource] {
            let mut counters = DropCounters::default();
            counters.count(reason);
            let counted: Vec<_> = counters.each().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [(reason.label(), 1)]);
        }
    }
}
