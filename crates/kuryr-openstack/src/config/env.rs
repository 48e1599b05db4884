//! `OS_*` variables.

use super::settings::{KEYS, Settings};

/// Reads every variable that is a setting.
pub(super) fn read(variable: &dyn Fn(&str) -> Option<String>) -> Settings {
    let mut settings = Settings::default();
    for key in KEYS {
        if let Some(value) = variable(&format!("OS_{}", key.to_uppercase())) {
            settings.set(key, &value);
        }
    }
    settings
}
