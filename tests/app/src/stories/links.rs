//! Valid and invalid invite links.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use natlab::party::World;
use partyline_model::{InviteTerms, Timestamp};
use partyline_party::{DeviceKey, Membership, NewParty};
use rand::rngs::OsRng;
use serde_json::Value;

use crate::{
    desktop::Desktop,
    steps::{deep, player},
};

const DAY: Duration = Duration::from_secs(86_400);

pub fn links(world: &World, programs: &Path) -> Result<()> {
    let server = world.server()?;
    let anna = player(world, &server, "anna")?;
    let ben = player(world, &server, "ben")?;
    let good = anna.create(Some(&server))?;
    ben.partyline(&["config", "set", "display_name", "Ben"])?;
    let mut desktop = Desktop::start(&ben, programs, 1)?;
    let app = desktop.app(&["partyline://join/AAAA"])?;
    app.reads("The beginning of this invite is missing.")?;
    desktop.start_again(Some(&ended()?))?;
    app.reads("The invite ended")?;
    ensure!(app.run(JOIN_IS_OFF)? == true, "one can join by an invite that has ended");

    // The invite is revoked by the command line. The joining member learns that from the other members.
    let back = invite(&anna.partyline(&["invite", "--json"])?)?;
    for open in anna.party()?.invites {
        anna.partyline(&["revoke", &open.id.to_string()])?;
    }
    desktop.start_again(Some(&deep(&back)?))?;
    app.reads("Join Friday night as Ben?")?;
    app.click("button", "Join")?;
    app.reads("is no longer in Friday night")?;

    let other = anna.create(Some(&server))?;
    ensure!(other != good, "one invite for two parties");
    desktop.start_again(Some(&deep(&other)?))?;
    app.reads("Join Friday night as Ben?")?;
    app.click("button", "Join")?;
    app.reads("2 of 2 online")?;
    app.close()
}

const JOIN_IS_OFF: &str = "return [...document.querySelectorAll('[role=dialog] button')]\
    .some((button) => button.innerText.trim() === 'Join' && button.disabled)";

fn invite(said: &str) -> Result<String> {
    let json: Value = serde_json::from_str(said).with_context(|| format!("invite said {said}"))?;
    let link = json.pointer("/value/link").or_else(|| json.pointer("/link")).and_then(Value::as_str);
    Ok(link.with_context(|| format!("no link in {said}"))?.to_owned())
}

/// Returns an invite that was valid for one day, of a party made three days ago.
fn ended() -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)? - 3 * DAY;
    let then = Timestamp(u64::try_from(now.as_millis())?);
    let new = NewParty {
        name: "Last week".into(),
        display_name: "Anna".into(),
        servers: Vec::new(),
        range: "10.80.7.0/24".parse()?,
    };
    let mut party = Membership::create(then, &mut OsRng, &DeviceKey::generate(&mut OsRng), new)?;
    Ok(party.create_invite(then, &mut OsRng, InviteTerms::FRIENDS)?.0.app_link())
}
