//! What people see: the snapshot, measurements of each member, and the findings of a check-up.
//!
//! [`View`] keeps what only people need: samples, rates, success of connection methods, open pings, and the revision
//! that grows whenever a snapshot may have changed. It reads the other parts of the node and changes none of them.

mod connection_stats;
mod findings;
mod measurement;
mod own_address;
mod pings;
mod snapshot;

use std::time::{Duration, Instant};

use partyline_model::{
    AppError, DeviceId, DeviceView, DoctorFinding, Method, Now, PartyId, PathKind, Phase, Reply, Sample,
    Settings, Snapshot,
};

use self::{
    connection_stats::ConnectionStats, measurement::Measurements, pings::PingAnswer, pings::Pings,
    snapshot::Sources,
};
use crate::{
    RequestId,
    connectivity::Connectivity,
    problem::{unknown_member, unknown_party},
    signaling::Signaling,
};

/// What only people need to know.
#[derive(Debug)]
pub(crate) struct View {
    version: String,
    measurements: Measurements,
    connection_stats: ConnectionStats,
    pings: Pings,
    revision: u32,
    stopping: bool,
}

impl View {
    /// Returns an empty view of a program of this version.
    pub(crate) fn new(version: String) -> Self {
        Self {
            version,
            measurements: Measurements::default(),
            connection_stats: ConnectionStats::default(),
            pings: Pings::default(),
            revision: 1,
            stopping: false,
        }
    }

    /// Returns the number that grows whenever the snapshot may have changed.
    pub(crate) const fn revision(&self) -> u32 {
        self.revision
    }

    /// Notes that the snapshot may have changed.
    pub(crate) const fn bump_revision(&mut self) {
        self.revision = self.revision.wrapping_add(1);
    }

    /// Shows from now on that the node is stopping.
    pub(crate) const fn set_stopping(&mut self) {
        self.stopping = true;
    }

    /// Notes the result of a check of the path in use to a member.
    pub(crate) fn on_sample(
        &mut self,
        now: Now,
        member: (PartyId, DeviceId),
        rtt: Option<Duration>,
        path: PathKind,
    ) {
        self.measurements.on_sample(now, member, rtt, path);
    }

    /// Notes that a connection method succeeded or was given up.
    pub(crate) fn on_attempt(&mut self, method: Method, succeeded: bool, took: Duration) {
        self.connection_stats.on_attempt(method, succeeded, took);
    }

    /// Forgets what was measured about a member.
    pub(crate) fn remove_member(&mut self, member: (PartyId, DeviceId)) {
        self.measurements.remove(member);
    }

    /// Reads the byte counts of all sessions, from which the rates come.
    pub(crate) fn sample_traffic(&mut self, now: Now, signaling: &Signaling, connectivity: &Connectivity) {
        for party in signaling.parties() {
            for device in party.membership().devices() {
                if let Some(session) = connectivity.session(party.id(), device) {
                    self.measurements.record_bytes(now.instant, (party.id(), device), &session);
                }
            }
        }
    }

    /// Draws everything there is to show.
    pub(crate) fn snapshot(
        &self,
        now: Now,
        device: DeviceId,
        settings: &Settings,
        signaling: &Signaling,
        connectivity: &Connectivity,
    ) -> Snapshot {
        let phase = if self.stopping { Phase::Stopping } else { Phase::Ready };
        let device = DeviceView { id: device, version: self.version.clone() };
        let sources = Sources { now, signaling, connectivity, measurements: &self.measurements };
        sources.snapshot(self.revision, phase, device, settings)
    }

    /// Returns what a check-up finds.
    pub(crate) fn findings(
        &self,
        now: Instant,
        signaling: &Signaling,
        connectivity: &Connectivity,
    ) -> Vec<DoctorFinding> {
        let mut findings = findings::findings(now, signaling, connectivity);
        findings.extend(self.connection_stats.finding());
        findings
    }

    /// Returns the samples of a member, oldest first.
    pub(crate) fn samples(
        &self,
        now: Instant,
        signaling: &Signaling,
        party: PartyId,
        member: DeviceId,
    ) -> Result<Vec<Sample>, AppError> {
        expect_member(signaling, party, &member)?;
        let measured = self.measurements.get((party, member));
        Ok(measured.map(|measured| measured.samples(now).collect()).unwrap_or_default())
    }

    /// Opens a ping to a member; returns the number to send to it.
    pub(crate) fn open_ping(
        &mut self,
        now: Instant,
        request: RequestId,
        signaling: &Signaling,
        party: PartyId,
        member: DeviceId,
    ) -> Result<u32, AppError> {
        expect_member(signaling, party, &member)?;
        Ok(self.pings.open(now, request, party, member))
    }

    /// Takes a member's pong; returns the reply to the request that asked for the ping.
    pub(crate) fn on_pong(
        &mut self,
        now: Instant,
        party: PartyId,
        from: DeviceId,
        number: u32,
    ) -> Option<PingAnswer> {
        self.pings.on_pong(now, party, from, number)
    }

    /// Returns the moment to call [`Self::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.pings.poll_timeout()
    }

    /// Returns the answers to requests whose time is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<(RequestId, Result<Reply, AppError>)> {
        self.pings.expire(now)
    }
}

fn expect_member(signaling: &Signaling, party: PartyId, member: &DeviceId) -> Result<(), AppError> {
    let party = signaling.party(party).ok_or_else(unknown_party)?;
    party.membership().member(member).map(|_| ()).ok_or_else(unknown_member)
}
