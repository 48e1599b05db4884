//! What Kuryr's own metrics say of where the time went.

/// The value of a sample on a metrics page; labels may come in any order.
pub(super) fn value(page: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let wanted = |line: &&str| labels.iter().all(|label| line.contains(label));
    let values = page.lines().filter(of_name).filter(wanted).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

/// The mean of a histogram's observations between two looks at it, in milliseconds.
pub(super) fn mean_ms(before: &str, after: &str, name: &str, labels: &[&str]) -> f64 {
    let since = |end: &str| {
        let name = format!("{name}_{end}");
        value(after, &name, labels) - value(before, &name, labels)
    };
    1000.0 * since("sum") / since("count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_what_came_between() {
        let page = |sum: f64, count: u32| {
            format!(
                "# TYPE t histogram\nt_sum{{verb=\"ADD\",code=\"0\"}} {sum}\nt_count{{verb=\"ADD\",code=\"0\"}} {count}\nt_sum{{verb=\"DEL\",code=\"0\"}} 9\nup 1\n"
            )
        };
        assert_eq!(mean_ms(&page(1.0, 10), &page(1.5, 60), "t", &["verb=\"ADD\"", "code=\"0\""]), 10.0);
        assert_eq!(value(&page(1.0, 10), "up", &[]), 1.0);
        assert_eq!(value(&page(1.0, 10), "t_sum", &[]), 10.0);
    }
}
