//! A text that tells whether members have changed since they were applied.

use super::wanted::Desired;
use std::fmt::Write as _;

/// A digest of all members that `desired` has, by tree and listener: recorded once they are applied, so that after a
/// restart the members of unchanged Services need not be listed. The same members give the same text in every version.
#[must_use]
pub fn digest(desired: &Desired) -> String {
    let mut hash = Fnv::default();
    for tree in &desired.trees {
        // Writing into a hash cannot fail.
        let _ = write!(hash, "{:?};", tree.role);
        for listener in &tree.listeners {
            let _ = write!(hash, "{}:", listener.key);
            for member in &listener.pool.members {
                let _ = write!(hash, "{} {} {},", member.address, member.port, member.weight);
            }
            let _ = write!(hash, ";");
        }
    }
    format!("{:032x}", hash.0)
}

/// FNV-1a of 128 bits (draft-eastlake-fnv): not against forgers, who could only fool their own Service.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl std::fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        let mut hash = Fnv::default();
        write!(hash, "a").unwrap();
        assert_eq!(format!("{:032x}", hash.0), "d228cb696f1a8caf78912b704e4a8964");
    }
}
