//! Findings of `doctor` that only the engine can know: rights, disk, router.

use partyline_model::{DoctorFinding, Verdict};
use partyline_platform::check_device_permission;
use partyline_portmap::{Health, MethodState};

use crate::{router_report, store::Store};

/// Puts the engine's findings in front of the node's, the most basic first.
pub(crate) fn complete(node: Vec<DoctorFinding>, store: &Store, ports: &[MethodState]) -> Vec<DoctorFinding> {
    let mut findings = vec![rights(), saved(store)];
    findings.extend(port_mapping(ports));
    findings.extend(node);
    findings
}

fn rights() -> DoctorFinding {
    let (verdict, note) = match check_device_permission() {
        Ok(()) => (Verdict::Good, "This process may create network devices.".to_owned()),
        Err(error) => (Verdict::Bad, format!("{error}. {}", error.hint())),
    };
    DoctorFinding { what: "Rights".to_owned(), verdict, note }
}

fn saved(store: &Store) -> DoctorFinding {
    let (verdict, note) = match (store.problem(), store.recovery()) {
        (Some(problem), _) => (Verdict::Bad, format!("{} {}", problem.message, problem.hint)),
        (None, Some(recovery)) => (Verdict::Fair, recovery.to_owned()),
        (None, None) => (Verdict::Good, format!("Keys and parties are saved in {}.", store.location())),
    };
    DoctorFinding { what: "Disk".to_owned(), verdict, note }
}

fn port_mapping(ports: &[MethodState]) -> Option<DoctorFinding> {
    let with = |health: Health| ports.iter().find(|state| state.health == health);
    let finding = |verdict, note| Some(DoctorFinding { what: "Router".to_owned(), verdict, note });
    if ports.is_empty() {
        return None;
    }
    if let Some(state) = with(Health::Mapped) {
        return finding(Verdict::Good, format!("The router opens ports on request ({}).", state.method));
    }
    if with(Health::Pending).is_some() {
        return finding(Verdict::Fair, "The router is being asked to open a port.".to_owned());
    }
    let problems: Vec<_> = ports.iter().map(explain).collect();
    finding(
        Verdict::Fair,
        format!(
            "The router opens no ports on request. Direct connections mostly work without; switching UPnP on in the \
             router's settings helps. {}",
            problems.join("; ")
        ),
    )
}

/// Describes one protocol with the state of its circuit breaker.
fn explain(state: &MethodState) -> String {
    let problem = router_report::explain(state).unwrap_or_else(|| "no problem".into());
    let retry =
        state.retry_after.map(|delay| format!(", next try after {} s", delay.as_secs())).unwrap_or_default();
    format!("{}: {problem} ({} failures{retry})", state.method, state.failures)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use partyline_portmap::Protocol;

    use super::*;

    fn state(method: Protocol, health: Health) -> MethodState {
        let (problem, retry_after) = (Some("the router refused".to_owned()), Some(Duration::from_secs(8)));
        MethodState { method, health, failures: 3, problem, retry_after, ..MethodState::pending(method) }
    }

    #[test]
    fn one_protocol_that_works_is_enough() {
        let states = [state(Protocol::Pcp, Health::CircuitOpen), state(Protocol::Upnp, Health::Mapped)];
        assert_eq!(port_mapping(&states).map(|finding| finding.verdict), Some(Verdict::Good));
        assert!(port_mapping(&[]).is_none());
    }

    #[test]
    fn every_open_circuit_breaker_is_explained() {
        let states = [state(Protocol::Pcp, Health::CircuitOpen), state(Protocol::Upnp, Health::CircuitOpen)];
        let finding = port_mapping(&states).unwrap();
        assert_eq!(finding.verdict, Verdict::Fair);
        assert_eq!(finding.note.matches("the router refused (3 failures, next try after 8 s)").count(), 2);
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "the anchor of virtual time")]
    async fn a_failed_write_is_a_finding() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::new(&directory.path().join("missing"));
        assert_eq!(saved(&store).verdict, Verdict::Good);
        let error = store.write(std::time::Instant::now(), Vec::new()).await.unwrap_err();
        let finding = saved(&store);
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(finding.note.starts_with(&error.message), "{}", finding.note);
    }
}
