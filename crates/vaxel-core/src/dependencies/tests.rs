use proptest::prelude::*;

use super::*;

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn map(lines: &[(&str, &[&str])]) -> Dependencies {
    let line =
        |(of, needs): &(&str, &[&str])| (name(of), needs.iter().map(|need| name(need)).collect());
    lines.iter().map(line).collect()
}

fn names(found: &[ServiceName]) -> Vec<&str> {
    found.iter().map(ServiceName::as_str).collect()
}

#[test]
fn a_service_starts_after_all_that_it_needs() {
    let map = map(&[
        ("web", &["api", "cache"]),
        ("api", &["db"]),
        ("cache", &[]),
        ("db", &["disk"]),
    ]);
    let order: Vec<&str> = map.order().into_iter().map(ServiceName::as_str).collect();
    assert_eq!(order, ["cache", "db", "api", "web"]);
}

#[test]
fn a_circle_is_named_from_end_to_end() {
    let map = map(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]);
    let circle = map.cycle(&name("c"), &[name("a")]).unwrap();
    assert_eq!(names(&circle), ["c", "a", "b", "c"]);
    assert_eq!(
        names(&map.cycle(&name("a"), &[name("a")]).unwrap()),
        ["a", "a"]
    );
    assert_eq!(map.cycle(&name("a"), &[name("b"), name("unknown")]), None);
}

#[test]
fn what_breaks_is_everything_above_with_the_way_to_it() {
    let map = map(&[
        ("web", &["api"]),
        ("api", &["db"]),
        ("jobs", &["db"]),
        ("db", &[]),
        ("other", &[]),
    ]);
    let affected = map.affected_by(&name("db"));
    let paths: Vec<Vec<&str>> = affected.iter().map(|one| names(&one.path)).collect();
    assert_eq!(
        paths,
        [
            vec!["api", "db"],
            vec!["jobs", "db"],
            vec!["web", "api", "db"]
        ]
    );
    assert!(map.affected_by(&name("web")).is_empty());
}

#[test]
fn the_chart_shows_what_is_missing() {
    let map = map(&[("web", &["db"]), ("other", &[])]);
    assert_eq!(
        map.to_mermaid(),
        "flowchart LR\n    s0[\"db\"]:::missing\n    s1[\"other\"]\n    s2[\"web\"]\n    s2 --> s0\n    \
         classDef missing stroke-dasharray: 4 4\n"
    );
}

fn any_map() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    proptest::collection::vec((0..12u8, proptest::collection::vec(0..12u8, 0..4)), 0..12)
}

fn number(number: u8) -> ServiceName {
    name(&format!("s{number}"))
}

proptest! {
    /// What `submit` does: an edge that closes a circle is refused, so that none ever exists.
    #[test]
    fn what_was_accepted_one_by_one_can_always_be_ordered(lines in any_map()) {
        let mut map = Dependencies::default();
        for (of, needs) in lines {
            let needs: Vec<ServiceName> = needs.into_iter().map(number).collect();
            if map.cycle(&number(of), &needs).is_none() {
                map.needs.insert(number(of), needs.into_iter().collect());
            }
        }
        let order = map.order();
        prop_assert_eq!(order.len(), map.needs.len());
        for (place, of) in order.iter().enumerate() {
            for need in &map.needs[*of] {
                if map.needs.contains_key(need) {
                    prop_assert!(order[..place].contains(&need), "{need} before {of}");
                }
            }
        }
    }

    #[test]
    fn whatever_the_map_every_service_is_in_the_order_once(lines in any_map(), from in 0..12u8) {
        let map: Dependencies = lines
            .into_iter()
            .map(|(of, needs)| (number(of), needs.into_iter().map(number).collect()))
            .collect();
        let order: BTreeSet<&ServiceName> = map.order().into_iter().collect();
        prop_assert_eq!(order.len(), map.needs.len());
        for affected in map.affected_by(&number(from)) {
            prop_assert_eq!(affected.path.last(), Some(&number(from)));
            for step in affected.path.windows(2) {
                prop_assert!(map.needs[&step[0]].contains(&step[1]));
            }
        }
    }
}
