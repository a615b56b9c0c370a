//! The licence policy of `deny.toml`, applied to every locked package.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, Package};
use toml::Value;

use crate::root;

/// Which licences and crates we build on.
#[derive(Debug)]
pub struct Policy {
    allowed: BTreeSet<String>,
    exceptions: Vec<(String, BTreeSet<String>)>,
    banned: BTreeSet<String>,
}

impl Policy {
    /// The policy in the workspace's `deny.toml`.
    ///
    /// # Errors
    /// When the file is missing or not in its format.
    pub fn read() -> Result<Self> {
        let file: Value = toml::from_str(&fs::read_to_string(root().join("deny.toml"))?)?;
        let licences = file.get("licenses").context("no [licenses]")?;
        let entries = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let exception = |entry: &Value| Some((named(entry, "crate")?, texts(entry.get("allow"))));
        Ok(Self {
            allowed: texts(licences.get("allow")),
            exceptions: entries(licences.get("exceptions")).iter().filter_map(exception).collect(),
            banned: entries(file.get("bans").and_then(|bans| bans.get("deny")))
                .iter()
                .filter_map(|entry| named(entry, "crate"))
                .collect(),
        })
    }

    /// What is wrong with the packages of others in `metadata`.
    #[must_use]
    pub fn violations(&self, metadata: &Metadata) -> Vec<String> {
        let theirs = metadata.packages.iter().filter(|package| package.source.is_some());
        theirs.filter_map(|package| self.violation(package)).collect()
    }

    fn violation(&self, package: &Package) -> Option<String> {
        let name = package.name.as_str();
        if self.banned.contains(name) {
            return Some(format!("{name} is banned"));
        }
        let licence = package.license.as_deref().unwrap_or("none");
        let excepted = self.exceptions.iter().find(|(excepted, _)| excepted == name);
        let permitted = |id: &str| {
            self.allowed.contains(id) || excepted.is_some_and(|(_, licences)| licences.contains(id))
        };
        (!satisfied(licence, &permitted)).then(|| format!("{name} {}: {licence}", package.version))
    }
}

fn texts(list: Option<&Value>) -> BTreeSet<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn named(entry: &Value, key: &str) -> Option<String> {
    entry.get(key)?.as_str().map(str::to_owned)
}

/// Whether an SPDX expression can be met by permitted licences. A slash is the old way to write OR.
fn satisfied(expression: &str, permitted: &impl Fn(&str) -> bool) -> bool {
    let spaced =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "~");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let met = any(&mut rest, permitted);
    met && rest.is_empty()
}

fn any(rest: &mut &[&str], permitted: &impl Fn(&str) -> bool) -> bool {
    let mut met = all(rest, permitted);
    while let [_, tail @ ..] = rest
        && rest[0] == "OR"
    {
        *rest = tail;
        met |= all(rest, permitted);
    }
    met
}

fn all(rest: &mut &[&str], permitted: &impl Fn(&str) -> bool) -> bool {
    let mut met = single(rest, permitted);
    while let [_, tail @ ..] = rest
        && rest[0] == "AND"
    {
        *rest = tail;
        met &= single(rest, permitted);
    }
    met
}

fn single(rest: &mut &[&str], permitted: &impl Fn(&str) -> bool) -> bool {
    let [first, tail @ ..] = rest else { return false };
    *rest = tail;
    if *first != "(" {
        return permitted(&first.replace('~', " WITH "));
    }
    let met = any(rest, permitted);
    match rest {
        [")", tail @ ..] => {
            *rest = tail;
            met
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied;

    fn ok(expression: &str) -> bool {
        satisfied(expression, &|id: &str| matches!(id, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception"))
    }

    #[test]
    fn expressions_are_met_by_permitted_licences() {
        for good in [
            "MIT",
            "MIT/GPL-3.0",
            "GPL-3.0 OR MIT",
            "(GPL-2.0 OR ISC) AND MIT",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(ok(good), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "none",
            "",
            "Apache-2.0",
            "(MIT",
            "MIT ISC",
            "(GPL-3.0 OR ISC) AND X",
        ] {
            assert!(!ok(bad), "{bad}");
        }
    }
}
