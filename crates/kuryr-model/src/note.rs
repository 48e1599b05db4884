//! Notes of Kubernetes Events.

/// The longest note that the API server takes, in bytes (`events.k8s.io/v1`, "maximal length is 1kB").
pub const LONGEST_NOTE: usize = 1024;

/// The note, cut between two characters to what the API server takes; then it ends with `…`.
#[must_use]
pub fn shorten(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        note.truncate(note.floor_char_boundary(LONGEST_NOTE - '…'.len_utf8()));
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(shorten("short".into()), "short");
        assert_eq!(shorten("x".repeat(1024)).len(), 1024);
        assert_eq!(shorten("ü".repeat(600)).len(), 1023);
    }

    proptest! {
        #[test]
        fn whatever_is_written_fits_and_begins_as_it_was(note in "(?s).{0,700}") {
            let short = shorten(note.clone());
            prop_assert!(short.len() <= LONGEST_NOTE);
            let kept = short.strip_suffix('…').filter(|_| short != note).unwrap_or(&short);
            prop_assert!(note.starts_with(kept));
            prop_assert!(short == note || short.len() > LONGEST_NOTE - 4);
        }
    }
}
