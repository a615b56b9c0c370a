//! What a check-up finds outside the node: rights, disk, router.

use partyline_model::{DoctorFinding, Verdict};
use partyline_platform::may_create_devices;
use partyline_portmap::{Health, MethodState};

use crate::{router, store::Store};

/// Adds the engine's findings to the node's, the most basic first.
pub(crate) fn complete(node: Vec<DoctorFinding>, store: &Store, ports: &[MethodState]) -> Vec<DoctorFinding> {
    let mut findings = vec![rights(), saved(store)];
    findings.extend(port_mapping(ports));
    findings.extend(node);
    findings
}

fn rights() -> DoctorFinding {
    let (verdict, note) = match may_create_devices() {
        Ok(()) => (Verdict::Good, "This process may create network devices.".to_owned()),
        Err(error) => (Verdict::Bad, format!("{error}. {}", error.hint())),
    };
    DoctorFinding { what: "Rights".to_owned(), verdict, note }
}

fn saved(store: &Store) -> DoctorFinding {
    let (verdict, note) = match store.problem() {
        None => (Verdict::Good, format!("Keys and parties are saved in {}.", store.place())),
        Some(problem) => (Verdict::Bad, format!("{} {}", problem.message, problem.hint)),
    };
    DoctorFinding { what: "Disk".to_owned(), verdict, note }
}

fn port_mapping(ports: &[MethodState]) -> Option<DoctorFinding> {
    let with = |health: Health| ports.iter().find(|state| state.health == health);
    let finding = |verdict, note| Some(DoctorFinding { what: "Router".to_owned(), verdict, note });
    if ports.is_empty() {
        return None;
    }
    if let Some(state) = with(Health::Works) {
        return finding(Verdict::Good, format!("The router opens ports on request ({}).", state.method));
    }
    if with(Health::Trying).is_some() {
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

/// One method with its circuit breaker's state.
fn explain(state: &MethodState) -> String {
    let problem = router::explain(state).unwrap_or_else(|| "no problem".into());
    let pause =
        state.pause.map(|pause| format!(", next try after {} s", pause.as_secs())).unwrap_or_default();
    format!("{}: {problem} ({} failures{pause})", state.method, state.failures)
}
