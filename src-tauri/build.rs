//! Gives Tauri its configuration. Where the user interface was not built, a development build still compiles, with a
//! program that says so and ends; a release build does not.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(no_ui)");
    println!("cargo::rerun-if-changed=../ui/dist");
    if !Path::new("../ui/dist/index.html").exists() {
        without_ui();
    }
    tauri_build::build();
}

fn without_ui() {
    let profile = env::var("PROFILE").unwrap_or_default();
    assert_ne!(profile, "release", "build the user interface first: cd ui && npm ci && npm run build");
    let nothing = Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("no-ui");
    fs::create_dir_all(&nothing).expect("the build's own directory can be written");
    fs::write(nothing.join("index.html"), "").expect("the build's own directory can be written");
    let changed = serde_json::json!({ "build": { "frontendDist": nothing } }).to_string();
    println!("cargo::rustc-cfg=no_ui");
    // For the macro that embeds the files.
    println!("cargo::rustc-env=TAURI_CONFIG={changed}");
}
