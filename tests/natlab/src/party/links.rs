//! Invites as messengers, mail programs and people pass them on.

use anyhow::{Context, Result, ensure};

use super::{Member, World, world::CONNECT_TIMEOUT};
use crate::{until, wait::that};

/// Every text that has one whole invite joins; one that has not is refused with the reason.
pub(super) fn pasted(world: &World) -> Result<()> {
    let cabin = world.lab.lonely_lan("cabin")?;
    let members = world.party(None, vec![cabin.host("anna")?, cabin.host("ben")?])?;
    let [anna, ben] = &members[..] else { unreachable!("two were asked for") };
    let link = anna.invite()?;
    let at = link.find("PLY").context("no code in the link")?;
    let code = &link[at..];
    let web = "https://party.example/join";
    let whole = [
        ("a full stop", format!("{link}.")),
        ("bold", format!("**{link}**")),
        ("a zero-width space", format!("{link}\u{200b}")),
        ("a tracking parameter", format!("{web}?fbclid=IwAR1abc#{code}")),
        ("a line break", format!("{}\n{}", &link[..90], &link[90..])),
        ("a sentence", format!("Come and play: {link} tonight")),
        ("the app's own link", format!("partyline://join?{code}")),
        ("an encoded mark", format!("{web}%23{code}")),
        ("the bare code", code.to_owned()),
    ];
    for (what, text) in &whole {
        ben.partyline(&["leave"])?;
        ben.join(text).with_context(|| format!("an invite with {what}: {text:?}"))?;
        back(ben, anna).with_context(|| format!("joined by an invite with {what}"))?;
    }
    let damaged = code.replacen(&code[40..44], "0000", 1);
    let refused = [
        ("cut", link[..150].to_owned(), "The end of this invite is missing"),
        ("damaged", damaged, "This invite is damaged"),
        ("someone else's link", "https://discord.gg/abcdef".to_owned(), "not a Partyline invite"),
        ("no link", "see you tonight".to_owned(), "There is no Partyline invite"),
    ];
    ben.partyline(&["leave"])?;
    for (what, text, reason) in &refused {
        let error = ben.join(text).err().with_context(|| format!("{what} was accepted: {text:?}"))?;
        ensure!(format!("{error:#}").contains(reason), "{what} is not called {reason:?}: {error:#}");
    }
    world.note("joined", whole.len());
    world.note("refused", refused.len());
    Ok(())
}

fn back(ben: &Member, anna: &Member) -> Result<()> {
    until("the two to meet", CONNECT_TIMEOUT, || {
        let seen = ben.sees(anna.name())?;
        that(seen.path.is_some(), || "no path".to_owned())?;
        ben.ping(seen.address.context("no address")?)
    })
}
