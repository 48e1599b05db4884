//! Who gets how much of what is not enough for all.

/// What each of several pools gets of `budget`: what it wants if that is enough for all. Else first its floor, and of the rest
/// in proportion to what it wants beyond. `wants` are floor and whole of each, the floor not above the whole.
#[must_use]
pub fn grant(wants: &[(usize, usize)], budget: usize) -> Vec<usize> {
    let whole = |(_, whole): &(usize, usize)| *whole;
    let floor = |(floor, _): &(usize, usize)| *floor;
    let beyond = |(floor, whole): &(usize, usize)| whole - floor;
    if wants.iter().map(whole).sum::<usize>() <= budget {
        return wants.iter().map(whole).collect();
    }
    let floors: usize = wants.iter().map(floor).sum();
    if floors > budget {
        return in_proportion(&wants.iter().map(floor).collect::<Vec<_>>(), budget);
    }
    let rest = in_proportion(&wants.iter().map(beyond).collect::<Vec<_>>(), budget - floors);
    wants.iter().zip(rest).map(|(want, more)| floor(want) + more).collect()
}

/// Divides `total`, which is less than the sum of `weights`, by largest remainder; of equal ones the first is served first.
fn in_proportion(weights: &[usize], total: usize) -> Vec<usize> {
    let sum: usize = weights.iter().sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let mut parts: Vec<usize> = weights.iter().map(|weight| weight * total / sum).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(weights.get(*index).map_or(0, |weight| weight * total % sum)));
    let left = total - parts.iter().sum::<usize>();
    for index in order.into_iter().take(left) {
        if let Some(part) = parts.get_mut(index) {
            *part += 1;
        }
    }
    parts
}

/// So few are not worth a request of their own.
const WHOLE: usize = 4;

/// How `count` ports are asked for by as many as `slots` requests at once, each of `bulk_size` at most: Neutron makes the ports of one
/// request one after another. What does not fit is left for the next round.
#[must_use]
pub fn split(count: usize, bulk_size: usize, slots: usize) -> Vec<usize> {
    let mut left = count;
    let mut sizes = Vec::new();
    for free in (1..=slots).rev() {
        let size = left.div_ceil(free).max(WHOLE).min(bulk_size).min(left);
        if size == 0 {
            break;
        }
        sizes.push(size);
        left -= size;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_gets_what() {
        for (wants, budget, wanted) in [
            (vec![(1, 5), (1, 3)], 10, vec![5, 3]),
            (vec![(1, 9), (1, 3)], 7, vec![5, 2]),
            (vec![(2, 2), (2, 10)], 8, vec![2, 6]),
            (vec![(2, 9), (2, 9), (2, 9)], 4, vec![2, 1, 1]),
            (vec![(0, 0), (0, 1)], 0, vec![0, 0]),
        ] {
            assert_eq!(grant(&wants, budget), wanted, "{wants:?} of {budget}");
        }
    }

    #[test]
    fn a_burst_goes_out_over_all_slots() {
        for (count, slots, wanted) in [
            (0, 2, vec![]),
            (3, 2, vec![3]),
            (5, 2, vec![4, 1]),
            (20, 2, vec![10, 10]),
            (50, 2, vec![20, 20]),
            (50, 4, vec![13, 13, 12, 12]),
            (5, 0, vec![]),
        ] {
            assert_eq!(split(count, 20, slots), wanted, "{count} over {slots}");
        }
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_wanted_and_the_budget_is_used_up_but_not_exceeded(
            wants in proptest::collection::vec((0usize..9, 0usize..30), 0..40), budget in 0usize..300,
        ) {
            let wants: Vec<(usize, usize)> = wants.into_iter().map(|(floor, more)| (floor, floor + more)).collect();
            let granted = grant(&wants, budget);
            let all: usize = wants.iter().map(|(_, whole)| whole).sum();
            prop_assert_eq!(granted.iter().sum::<usize>(), all.min(budget));
            let floors: usize = wants.iter().map(|(floor, _)| floor).sum();
            for ((floor, whole), part) in wants.iter().zip(&granted) {
                prop_assert!(part <= whole);
                prop_assert!(floors > budget || part >= floor);
            }
        }
    }
}
