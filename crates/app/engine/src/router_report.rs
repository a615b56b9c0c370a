//! What the router was asked for and how it answered, as the node takes it.

use partyline_model::RouterCheck;
use partyline_node::{PeerMapping, PortMappingReport};
use partyline_portmap::{Health, MethodState};

use crate::port_mapping::RouterState;

/// Describes what the router does now: its mappings, the outcome of each protocol, and what it guarantees for single
/// flows where it maps no port (PCP PEER, RFC 6887, section 12).
pub(crate) fn report(RouterState { mapped, protocols: states }: RouterState) -> PortMappingReport {
    let flows = states.iter().flat_map(|state| &state.flows);
    let peer_mappings = flows
        .map(|flow| PeerMapping { remote: flow.remote, external: flow.external, lifetime: flow.lifetime })
        .collect();
    PortMappingReport { mapped, protocols: states.iter().map(check).collect(), peer_mappings }
}

fn check(state: &MethodState) -> RouterCheck {
    let waiting = (state.health == Health::Pending).then(|| "no answer yet".to_owned());
    let works = state.health == Health::Mapped;
    RouterCheck {
        protocol: state.method.to_string(),
        works,
        problem: explain(state).or(waiting).filter(|_| !works),
    }
}

/// Explains why a protocol does not work, and what the router does instead.
pub(crate) fn explain(state: &MethodState) -> Option<String> {
    let kept = state.flows.iter().map(|flow| {
        let seconds = flow.lifetime.as_secs();
        format!(
            "; but keeps the way to {} open for {seconds} s at a time, from {}",
            flow.remote, flow.external
        )
    });
    state.problem.as_ref().map(|problem| problem.clone() + &kept.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use partyline_portmap::{Flow, Protocol};

    use super::*;

    #[test]
    fn a_router_that_maps_no_port_is_reported_with_the_flows_it_keeps() {
        let (remote, external) = (([11, 0, 0, 9], 3478).into(), ([11, 0, 0, 1], 41_641).into());
        let lifetime = Duration::from_secs(600);
        let state = MethodState {
            health: Health::CircuitOpen,
            failures: 3,
            problem: Some("the router refused: it opens no ports".into()),
            flows: vec![Flow { remote, external, lifetime }],
            ..MethodState::pending(Protocol::Pcp)
        };
        let report = report(RouterState { mapped: vec![external], protocols: vec![state] });
        let [check] = &report.protocols[..] else { panic!("one check") };
        let expected = "the router refused: it opens no ports; but keeps the way to 11.0.0.9:3478 open for 600 s at a \
                    time, from 11.0.0.1:41641";
        assert_eq!((check.works, check.problem.as_deref()), (false, Some(expected)));
        assert_eq!(report.peer_mappings, [PeerMapping { remote, external, lifetime }]);
        assert_eq!(report.mapped, [external]);
    }
}
