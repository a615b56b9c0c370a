//! Counts, and on request drops, what a home sends.

use anyhow::{Context, Result};

use crate::{Site, checked};

/// Matches UDP datagrams whose first byte is a `d`: messages to the DHT are bencoded dictionaries (BEP 5).
const DHT: &str = "meta l4proto udp @th,64,8 0x64";

/// Starts to count the datagrams that a home sends to the DHT.
pub(super) fn count_dht(site: &Site<'_>) -> Result<()> {
    site.router().nft(&format!(
        "table inet watch {{ counter dht {{ }}; \
         chain forward {{ type filter hook forward priority -10; iifname \"lan0\" {DHT} counter name dht; }}; }}"
    ))
}

/// Returns the number of datagrams counted.
pub(super) fn counted(site: &Site<'_>) -> Result<u64> {
    let said = checked(site.router().command("nft").args(["list", "counter", "inet", "watch", "dht"]))?;
    let mut words = said.split_whitespace().skip_while(|word| *word != "packets").skip(1);
    words.next().and_then(|count| count.parse().ok()).with_context(|| format!("nft said {said}"))
}

/// Drops everything that a home sends by UDP.
pub(super) fn block_udp(site: &Site<'_>) -> Result<()> {
    block(site, "meta l4proto udp")
}

/// Drops what a home sends to the DHT.
pub(super) fn block_dht(site: &Site<'_>) -> Result<()> {
    block(site, DHT)
}

fn block(site: &Site<'_>, what: &str) -> Result<()> {
    site.router().nft(&format!(
        "table inet block {{ chain forward {{ type filter hook forward priority -5; \
         iifname \"lan0\" {what} drop; }}; }}"
    ))
}
