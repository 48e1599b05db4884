use super::*;

#[test]
fn a_glob_matches_whole_names() {
    for (pattern, name) in [("*", ""), ("a*c", "abbc"), ("a?c", "abc"), ("*b*", "abc"), ("abc", "abc"), ("a**", "a")] {
        assert!(glob(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
    }
    for (pattern, name) in [("", "a"), ("a?", "a"), ("a*c", "abcd"), ("b*", "abc"), ("abc", "ABC")] {
        assert!(!glob(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
    }
}

#[test]
fn a_pattern_full_of_stars_costs_no_time() {
    assert!(!glob("*a".repeat(100).as_bytes(), "b".repeat(250).as_bytes()));
    assert!(!glob("a*".repeat(100).as_bytes(), format!("{}b", "a".repeat(50)).as_bytes()));
}

#[test]
fn tags_are_any_or_all_or_not() {
    let tags = ["fast".to_owned(), "cheap".to_owned()];
    for fits in ["fast", "fast,dear", "&fast,cheap", "!dear", "!&fast,dear"] {
        assert!(tags_fit(fits, &tags), "{fits}");
    }
    for no in ["dear", "&fast,dear", "!fast", "!&fast,cheap"] {
        assert!(!tags_fit(no, &tags), "{no}");
    }
}
