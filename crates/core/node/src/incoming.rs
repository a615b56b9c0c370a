//! Rules for ports of this computer, as commands set them.

use partyline_model::{AppError, ErrorCode, IncomingPolicy, PortRule, ServicePort};
use tracing::info;

/// Sets or removes the rule of a port.
///
/// # Errors
/// A port that does not exist, or too many rules.
pub(crate) fn set_rule(
    policy: &mut IncomingPolicy,
    port: ServicePort,
    rule: Option<PortRule>,
) -> Result<(), AppError> {
    if port.port == 0 {
        return Err(AppError::new(
            ErrorCode::InvalidInput,
            "There is no port 0.",
            "Name a port from 1 to 65535, such as tcp/445.",
        ));
    }
    if !policy.set_rule(port, rule) {
        return Err(AppError::new(
            ErrorCode::InvalidInput,
            format!("A party can have at most {} rules for ports.", IncomingPolicy::MAX_RULES),
            "Forget some of them first, with `partyline ports forget`.",
        ));
    }
    info!(%port, ?rule, "rule of a port changed");
    Ok(())
}
