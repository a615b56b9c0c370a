//! How the router was asked for a port, for people.

use partyline_model::RouterCheck;
use partyline_portmap::{Health, MethodState};

/// Every way, with what came of it.
pub(crate) fn checks(states: &[MethodState]) -> Vec<RouterCheck> {
    states.iter().map(check).collect()
}

fn check(state: &MethodState) -> RouterCheck {
    let waiting = (state.health == Health::Trying).then(|| "no answer yet".to_owned());
    let works = state.health == Health::Works;
    RouterCheck {
        protocol: state.method.to_string(),
        works,
        problem: state.problem.clone().or(waiting).filter(|_| !works),
    }
}
