//! The rules, applied to this workspace.

#![allow(clippy::unwrap_used)]

use std::fs;

use partyline_tests_architecture::{
    attacks, layers, licences::Policy, metadata, modules::Modules, root, sources::Source,
};

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn arrows_point_down() {
    none("dependencies against the architecture", layers::wrong_arrows(&metadata().unwrap()));
}

#[test]
fn the_core_stands_on_nothing_with_sockets() {
    none("ways from the core to sockets or an event loop", layers::impure_chains(&metadata().unwrap()));
}

#[test]
fn the_core_reads_no_clock_randomness_socket_or_thread() {
    let sources = Source::all(&root()).unwrap();
    assert!(sources.iter().any(Source::is_core), "no core found");
    none("impure lines in the core", sources.iter().flat_map(Source::impurities).collect());
}

#[test]
fn only_platform_has_unsafe_code() {
    let sources = Source::all(&root()).unwrap();
    none("unsafe code", sources.iter().flat_map(Source::unsafe_code).collect());
}

#[test]
fn modules_form_no_cycles() {
    let metadata = metadata().unwrap();
    let roots = metadata.workspace_packages().into_iter().flat_map(|package| {
        let programs = package.targets.iter().filter(|target| target.is_lib() || target.is_bin());
        programs.map(|target| (package.name.to_string(), target.src_path.clone()))
    });
    let cycles = roots.flat_map(|(package, root)| {
        let cycles = Modules::read(root.as_std_path()).unwrap().cycles();
        cycles.into_iter().map(move |cycle| format!("{package}: {cycle}"))
    });
    none("modules that depend on each other", cycles.collect());
}

#[test]
fn every_attack_has_a_test_that_exists() {
    let table = fs::read_to_string(root().join("docs/security.md")).unwrap();
    none("attacks without a test", attacks::unproven(&table, &Source::all(&root()).unwrap()));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let lax = |manifest: &str| {
        let manifest: toml::Value = toml::from_str(manifest).unwrap();
        manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool)
            != Some(true)
    };
    let metadata = metadata().unwrap();
    let packages = metadata.workspace_packages().into_iter();
    let lax = packages.filter(|package| lax(&fs::read_to_string(&package.manifest_path).unwrap()));
    none("crates without [lints] workspace = true", lax.map(|package| package.name.to_string()).collect());
}

#[test]
fn licences_follow_the_policy() {
    none("packages against deny.toml", Policy::read().unwrap().violations(&metadata().unwrap()));
}
