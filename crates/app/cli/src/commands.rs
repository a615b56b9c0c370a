//! What each command does.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::Path,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::CommandFactory as _;
use clap_complete::Shell;
use partyline_engine::Controller;
use partyline_model::{
    AppError, Command, DoctorFinding, EngineCommand, ErrorCode, InviteLifetime, InviteTerms, KickScope,
    PartyId, Reply, Role, Snapshot, Verdict,
};
use partyline_platform::check_device_permission;
use partyline_service::{Place, Reached, own_name};
use partyline_wire::invite::{Invite as InviteLink, MAX_TEXT};
use qrcode::{QrCode, render::unicode};

use crate::{
    arguments::{
        Approval, Approve, Arguments, Create, Decline, Hosting, IdentityChange, Invite, Join, Kick, Ping,
        Range, Revoke, Status, Switch, Up, Verb, WhichParty,
    },
    config, invites, joiners,
    live::View,
    names::{joiner_name, name_of},
    netcheck,
    output::{Output, Tone},
    ping, ports,
    progress::{self, Outcome},
    reach,
    reply::unexpected,
    select, status,
    text::clean,
};

/// Runs the command that was given.
pub async fn run(arguments: Arguments, output: &Output) -> Result<ExitCode, AppError> {
    let done = match arguments.verb {
        Verb::Create(create) => create_party(create, output).await,
        Verb::Join(join) => join_party(join, output).await,
        Verb::Invite(invite) if invite.list => list_invites(invite, output).await,
        Verb::Invite(invite) => make_invite(invite, output).await,
        Verb::Revoke(revoke) => revoke_invite(revoke, output).await,
        Verb::Approve(approve) => answer_joiner(approve, true, output).await,
        Verb::Decline(Decline { joiner, party, place }) => {
            answer_joiner(Approve { joiner: Some(joiner), party, place }, false, output).await
        }
        Verb::Approval(approval) => set_approval(approval, output).await,
        Verb::List { place } => list(&place, output).await,
        Verb::Leave(which) => on_party(which, output, "Left", |party| Command::Leave { party }).await,
        Verb::Down(which) => on_party(which, output, "Switched off", |party| Command::Down { party }).await,
        Verb::Range(range) => move_party(range, output).await,
        Verb::Ports(options) => ports::run(options, output).await,
        Verb::Identity { change: IdentityChange::New { place } } => new_identity(&place, output).await,
        Verb::Identity { change: IdentityChange::Forget { party, place } } => {
            forget_former(&party, &place, output).await
        }
        Verb::Trust { url, place } => trust_server(url, &place, output).await,
        Verb::Up(up) => switch_on(up, output).await,
        Verb::Kick(which) => kick(which, output).await,
        Verb::Status(status) => show_status(status, output).await,
        Verb::Ping(ping) => ping_member(ping, output).await,
        Verb::Service { command } => command.execute().await,
        Verb::Netcheck(options) => netcheck::run(options, output).await,
        Verb::Doctor { place, metrics: true } => metrics(&place, output).await,
        Verb::Doctor { place, .. } => return doctor(&place, output).await,
        Verb::Config(options) => config::run(options, output).await,
        Verb::Completions { shell } => {
            output.write(&completions(shell));
            Ok(())
        }
        Verb::Manual { directory } => write_manual(&directory),
        Verb::Version { place } => version(&place, output).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Returns the completion script for a shell. The generator itself panics when it cannot write, as into a closed pipe.
fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "partyline", &mut script);
    script
}

fn write_manual(directory: &Path) -> Result<(), AppError> {
    clap_mangen::generate_to(Arguments::command(), directory).map_err(|error| {
        AppError::new(
            ErrorCode::Storage,
            format!("Cannot write into {}: {error}.", directory.display()),
            "Name a directory that exists and that you may write to.",
        )
    })
}

/// Returns the given name, else the one in the settings, else the user's.
fn display_name(given: Option<String>, reached: &Reached) -> String {
    let set = || reached.controller.snapshots().borrow().settings.display_name.clone();
    given.or_else(|| Some(set()).filter(|name| !name.is_empty())).unwrap_or_else(own_name)
}

/// Returns the name that this user had in the invite's party under an earlier identity.
fn former_name(reached: &Reached, invite: &InviteLink) -> Option<String> {
    let snapshots = reached.controller.snapshots();
    let snapshot = snapshots.borrow();
    let former = snapshot.former_parties.iter().find(|former| former.id == invite.party);
    former.map(|former| former.display_name.clone())
}

async fn create_party(create: Create, output: &Output) -> Result<(), AppError> {
    let reached = reach::engine(&create.hosting, create.watch, output).await?;
    let display_name = display_name(create.display_name, &reached);
    let command =
        Command::Create { name: create.name, display_name, servers: create.servers, range: create.range };
    let reply = reached.controller.request(command).await?;
    let Reply::Created { link, party } = &reply else { return Err(unexpected(&reply)) };
    let title = "The party is on. Friends join with this link (valid for a day, for ten devices):".to_owned();
    let mut shown = vec![title, clean(link)];
    shown.extend(create.qr.then(|| qr_code(link)).transpose()?.unwrap_or_default());
    output.answer(&reply, || shown.iter().for_each(|line| output.say(line)));
    if !create.watch && !output.json {
        output.say(ports::DEFAULT);
        let snapshots = reached.controller.snapshots();
        progress::obstacles(output, snapshots, *party).await.iter().for_each(|line| output.say(line));
    }
    stay(reached, &create.hosting, create.watch.then_some(*party), &shown, output).await
}

/// Returns what was given as words, or what standard input has if that is nothing or `-`.
fn invite_text(words: &[String], output: &Output) -> Result<String, AppError> {
    if !words.is_empty() && words != ["-"] {
        return Ok(words.join(" "));
    }
    if io::stdin().is_terminal() {
        // To the end, and not to the end of the invite: lines after it would be commands for the shell.
        output.prompt("Paste the invite, then press Enter and Ctrl-D.");
    }
    // One byte more than is searched, so that a longer text is refused rather than cut.
    let mut text = Vec::new();
    io::stdin().take(MAX_TEXT as u64 + 1).read_to_end(&mut text).map_err(|error| {
        AppError::new(
            ErrorCode::InvalidInput,
            format!("Standard input cannot be read: {error}."),
            "Give the invite as an argument.",
        )
    })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn join_party(join: Join, output: &Output) -> Result<(), AppError> {
    // What is no invite needs no service to be recognised.
    let invite = InviteLink::find(&invite_text(&join.text, output)?)?;
    let reached = reach::engine(&join.hosting, join.watch, output).await?;
    let known_as = join.display_name.or_else(|| former_name(&reached, &invite));
    let display_name = display_name(known_as, &reached);
    for url in invite.servers.iter().filter(|_| join.trust_servers) {
        reached.controller.request(Command::TrustServer { url: url.clone() }).await?;
    }
    let reply = reached.controller.request(Command::Join { link: invite.app_link(), display_name }).await?;
    let Reply::Joined { party } = reply else { return Err(unexpected(&reply)) };
    output.answer(&reply, || {
        output.say("Joined.");
        output.say(ports::DEFAULT);
    });
    if !join.no_wait && !join.watch {
        let limit = Duration::from_secs(join.timeout.into());
        let since = reach::state(&reached.controller).await?.revision;
        let followed = progress::follow(output, reached.controller.snapshots(), (party, since), limit).await;
        if let Err(error) = report(followed, output) {
            // A process that hosts the party keeps trying.
            if reached.host.is_none() {
                return Err(error);
            }
            output.error(&error);
        }
    }
    stay(reached, &join.hosting, join.watch.then_some(party), &[], output).await
}

fn report(followed: Result<Outcome, AppError>, output: &Output) -> Result<(), AppError> {
    match followed? {
        Outcome::Ready(line) => {
            output.say(&line);
            Ok(())
        }
        Outcome::StillConnecting => Err(AppError::new(
            ErrorCode::Timeout,
            "Joined, but the party is not connected yet.",
            "It keeps trying; `partyline status --watch` shows how far it is.",
        )),
    }
}

/// Keeps running where this process hosts the engine, or is to show it; `watched` is the party that was just made or joined.
async fn stay(
    reached: Reached,
    hosting: &Hosting,
    watched: Option<PartyId>,
    above: &[String],
    output: &Output,
) -> Result<(), AppError> {
    let view = View { output, above, party: None, awaited: watched, why: false };
    let controller = reached.controller.clone();
    match (reached.host.is_some(), watched.is_some()) {
        (false, false) => Ok(()),
        (false, true) => view.follow_service(&hosting.place, controller).await,
        (true, _) => {
            output.say("Press Ctrl-C to stop.");
            view.beside(controller, reach::finish(reached)).await?
        }
    }
}

async fn make_invite(invite: Invite, output: &Output) -> Result<(), AppError> {
    let controller = invite.place.connect().await?;
    let party = party_id(&controller, invite.party.as_deref()).await?;
    let role = if invite.co_owner { Role::CoOwner } else { Role::Member };
    let terms = InviteTerms { lifetime: InviteLifetime::from(invite.expires), uses: invite.uses.0, role };
    let reply = controller.request(Command::Invite { party, terms }).await?;
    let Reply::Invite { link } = &reply else { return Err(unexpected(&reply)) };
    let mut shown = vec![clean(link)];
    shown.extend(invite.qr.then(|| qr_code(link)).transpose()?.unwrap_or_default());
    output.answer(&reply, || shown.iter().for_each(|line| output.say(line)));
    if !invite.watch {
        return Ok(());
    }
    let party = invite.party.as_deref();
    View { output, above: &shown, party, awaited: None, why: false }
        .follow_service(&invite.place, controller)
        .await
}

async fn list_invites(invite: Invite, output: &Output) -> Result<(), AppError> {
    let snapshot = reach::state(&invite.place.connect().await?).await?;
    let party = select::party(&snapshot, invite.party.as_deref())?;
    output.answer(&party.invites, || {
        invites::lines(output, &party.invites, SystemTime::now()).iter().for_each(|line| output.say(line))
    });
    Ok(())
}

async fn revoke_invite(revoke: Revoke, output: &Output) -> Result<(), AppError> {
    let controller = revoke.place.connect().await?;
    let snapshot = reach::state(&controller).await?;
    let (party, invite) = select::invite(&snapshot, revoke.party.as_deref(), &revoke.invite)?;
    let reply = controller.request(Command::Revoke { party: party.id, invite: invite.id }).await?;
    finished(&reply, output, &format!("Revoked the invite {}", invite.id.short()))
}

async fn answer_joiner(answer: Approve, approve: bool, output: &Output) -> Result<(), AppError> {
    let controller = answer.place.connect().await?;
    let snapshot = reach::state(&controller).await?;
    let Some(joiner) = answer.joiner else {
        let party = select::party(&snapshot, answer.party.as_deref())?;
        output.answer(&party.join_requests, || {
            joiners::lines(output, party).iter().for_each(|line| output.say(line))
        });
        return Ok(());
    };
    let (party, request) = select::joiner(&snapshot, answer.party.as_deref(), &joiner)?;
    let command = Command::AnswerJoin { party: party.id, device: request.device, approve };
    let done = if approve { "Let in" } else { "Declined" };
    finished(&controller.request(command).await?, output, &format!("{done} {}", joiner_name(request)))
}

async fn set_approval(approval: Approval, output: &Output) -> Result<(), AppError> {
    let Approval { needed, party, place } = approval;
    let (on, done) = match needed {
        Switch::On => (true, "From now on you approve every joiner"),
        Switch::Off => (false, "From now on everybody with an open invite can join"),
    };
    on_party(WhichParty { party, place }, output, done, |party| Command::SetApproval { party, on }).await
}

async fn move_party(to: Range, output: &Output) -> Result<(), AppError> {
    let controller = to.place.connect().await?;
    let party = party_id(&controller, to.party.as_deref()).await?;
    if to.ask {
        let reply = controller.request(Command::RequestRange { party }).await?;
        return finished(
            &reply,
            output,
            "Asked; the owner sees it when online, and moves the party with one command",
        );
    }
    let reply = controller.request(Command::SetRange { party, range: to.range }).await?;
    let moved =
        reach::state(&controller).await?.parties.iter().find(|known| known.id == party).and_then(|p| p.range);
    let where_to = moved.map_or_else(|| "another range".to_owned(), |range| range.to_string());
    finished(&reply, output, &format!("Moved to {where_to}; members follow when they receive the change"))
}

async fn new_identity(place: &Place, output: &Output) -> Result<(), AppError> {
    let controller = place.connect().await?;
    let reply = controller.request(Command::NewIdentity).await?;
    let snapshot = reach::state(&controller).await?;
    finished(&reply, output, "This computer has a new identity")?;
    if !output.json {
        status::former_lines(output, &snapshot).iter().for_each(|line| output.say(line));
    }
    Ok(())
}

async fn forget_former(word: &str, place: &Place, output: &Output) -> Result<(), AppError> {
    let controller = place.connect().await?;
    let party = select::former(&*reach::state(&controller).await?, word)?.id;
    finished(&controller.request(Command::ForgetFormer { party }).await?, output, "Forgotten")
}

async fn trust_server(url: String, place: &Place, output: &Output) -> Result<(), AppError> {
    let controller = place.connect().await?;
    let done = format!("Confirmed {}; it is used at private addresses, too", clean(&url));
    finished(&controller.request(Command::TrustServer { url }).await?, output, &done)
}

/// Renders the link as a QR code, two modules to a character.
fn qr_code(link: &str) -> Result<Vec<String>, AppError> {
    let code = QrCode::new(link).map_err(|error| {
        AppError::new(
            ErrorCode::InvalidInput,
            format!("The link makes no QR code: {error}."),
            "Send it as text.",
        )
    })?;
    let mut drawing = code.render::<unicode::Dense1x2>();
    // Terminals are dark, and cameras expect dark modules on a light background.
    let drawn = drawing.dark_color(unicode::Dense1x2::Light).light_color(unicode::Dense1x2::Dark).build();
    Ok(drawn.lines().map(str::to_owned).collect())
}

async fn list(place: &Place, output: &Output) -> Result<(), AppError> {
    let snapshot = reach::state(&place.connect().await?).await?;
    output.answer(&snapshot.parties, || {
        status::list(output, &snapshot).iter().for_each(|line| output.say(line))
    });
    Ok(())
}

async fn on_party(
    which: WhichParty,
    output: &Output,
    done: &str,
    command: impl FnOnce(PartyId) -> Command,
) -> Result<(), AppError> {
    let controller = which.place.connect().await?;
    let party = party_id(&controller, which.party.as_deref()).await?;
    finished(&controller.request(command(party)).await?, output, done)
}

async fn switch_on(up: Up, output: &Output) -> Result<(), AppError> {
    let reached = reach::engine(&up.hosting, false, output).await?;
    let party = party_id(&reached.controller, up.party.as_deref()).await?;
    finished(&reached.controller.request(Command::Up { party }).await?, output, "Switched on")?;
    stay(reached, &up.hosting, None, &[], output).await
}

async fn kick(kick: Kick, output: &Output) -> Result<(), AppError> {
    let Kick { which, same_link, end_links } = kick;
    let scope = KickScope { same_link, all_links: end_links };
    let controller = which.place.connect().await?;
    let snapshot = reach::state(&controller).await?;
    let (party, member) = select::member(&snapshot, which.party.as_deref(), &which.member)?;
    let reply = controller.request(Command::Kick { party: party.id, member: member.id, scope }).await?;
    finished(&reply, output, &format!("Removed {}", name_of(member)))
}

fn finished(reply: &Reply, output: &Output, done: &str) -> Result<(), AppError> {
    let Reply::Done = reply else { return Err(unexpected(reply)) };
    output.answer(reply, || output.say(&format!("{done}.")));
    Ok(())
}

async fn show_status(options: Status, output: &Output) -> Result<(), AppError> {
    let controller = options.place.connect().await?;
    let snapshot = reach::state(&controller).await?;
    let word = options.party.as_deref();
    let only = word.map(|word| select::party(&snapshot, Some(word))).transpose()?;
    if options.watch {
        let view = View { output, above: &[], party: word, awaited: None, why: options.why };
        return view.follow_service(&options.place, controller).await;
    }
    match (only, output.json) {
        (Some(party), true) => {
            output.value(&Snapshot { parties: vec![party.clone()], ..(*snapshot).clone() })
        }
        (None, true) => output.value(&*snapshot),
        (only, false) => {
            status::lines(output, &snapshot, only, options.why).iter().for_each(|line| output.say(line))
        }
    }
    Ok(())
}

async fn ping_member(options: Ping, output: &Output) -> Result<(), AppError> {
    let controller = options.which.place.connect().await?;
    let snapshot = reach::state(&controller).await?;
    let target = select::member(&snapshot, options.which.party.as_deref(), &options.which.member)?;
    ping::run(output, &controller, target, options.count, options.interval).await
}

/// Returns exit code 1 if any finding is bad.
async fn doctor(place: &Place, output: &Output) -> Result<ExitCode, AppError> {
    let findings = match place.connect().await {
        Ok(controller) => match controller.request(Command::Doctor).await? {
            Reply::Doctor(findings) => findings,
            other => return Err(unexpected(&other)),
        },
        Err(error) => without_service(&error),
    };
    output
        .answer(&findings, || findings.iter().for_each(|finding| output.say(&finding_line(output, finding))));
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn metrics(place: &Place, output: &Output) -> Result<(), AppError> {
    match place.connect().await?.request(EngineCommand::Metrics).await? {
        Reply::Metrics { text } => {
            output.answer(&serde_json::json!({ "metrics": text }), || output.say(text.trim_end()));
            Ok(())
        }
        other => Err(unexpected(&other)),
    }
}

/// Returns what this process can find out while the service does not answer.
fn without_service(error: &AppError) -> Vec<DoctorFinding> {
    let service = DoctorFinding {
        what: "service".into(),
        verdict: Verdict::Bad,
        note: format!("{} {}", error.message, error.hint),
    };
    let rights = match check_device_permission() {
        Ok(()) => (
            Verdict::Good,
            "This process may make network devices: `--foreground` works without the service.".into(),
        ),
        Err(error) => {
            let error = AppError::from(error);
            (Verdict::Fair, format!("Without the service: {} {}", error.message, error.hint))
        }
    };
    vec![service, DoctorFinding { what: "rights".into(), verdict: rights.0, note: rights.1 }]
}

fn finding_line(output: &Output, finding: &DoctorFinding) -> String {
    let (word, tone) = match finding.verdict {
        Verdict::Good => ("good", Tone::Good),
        Verdict::Fair => ("fair", Tone::Fair),
        Verdict::Bad => ("bad ", Tone::Bad),
    };
    format!("{}  {}: {}", output.paint(word, tone), clean(&finding.what), clean(&finding.note))
}

async fn version(place: &Place, output: &Output) -> Result<(), AppError> {
    let own = concat!("partyline ", env!("CARGO_PKG_VERSION"));
    let service = partyline_ipc::connect(&place.endpoint()).await.ok().map(|connection| connection.software);
    let versions = serde_json::json!({ "client": own, "service": service });
    output.answer(&versions, || {
        output.say(own);
        match &service {
            Some(software) => output.say(&format!("service: {}", clean(software))),
            None => output.say("service: not running"),
        }
    });
    Ok(())
}

async fn party_id(controller: &Controller, word: Option<&str>) -> Result<PartyId, AppError> {
    let snapshot = reach::state(controller).await?;
    select::party(&snapshot, word).map(|party| party.id)
}
