//! Sentences that name things together without expressing a relation, in words close to those that
//! do (`distractors.txt`). They are about `{a}` and `{b}`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{
    lists::TextLists,
    schema::{
        Kind::{self, City, Company, Country, Person, University, Work},
        Rel,
    },
};

static CLAUSES: LazyLock<TextLists> =
    LazyLock::new(|| TextLists::new(include_str!("distractors.txt"), |letter| letter == '\n'));

static BY_KINDS: LazyLock<BTreeMap<(Kind, Kind), &[&str]>> = LazyLock::new(|| {
    let pairs = Kind::ALL.into_iter().flat_map(|first| Kind::ALL.map(|second| (first, second)));
    let list = |(first, second): (Kind, Kind)| {
        ((first, second), CLAUSES.of(&format!("{}, {}", first.group(), second.group())))
    };
    pairs.map(list).collect()
});

/// Clauses about two things, by what they are; none if there is nothing to say about them in this
/// order.
pub(super) fn clauses(first: Kind, second: Kind) -> &'static [&'static str] {
    BY_KINDS[&(first, second)]
}

/// Clauses for any two things that are neither dates nor numbers.
pub(super) fn about_any_two() -> &'static [&'static str] {
    CLAUSES.of("any two")
}

/// Clauses for one thing alone.
pub(super) fn about_any_one() -> &'static [&'static str] {
    CLAUSES.of("any one")
}

/// A clause that denies relations between `{a}` and `{b}`. It is not used for pairs that the
/// knowledge base relates in this way: the text leaves facts out, but does not contradict them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denial {
    pub clause: &'static str,
    /// What is denied, in either direction.
    pub denied: &'static [Rel],
}

/// Denials about two things, by what they are.
pub(super) fn denials(first: Kind, second: Kind) -> &'static [Denial] {
    match (first, second) {
        (Person, Person) => &[
            Denial {
                clause: "{a} was never married to {b} , whatever the papers said",
                denied: &[Rel::Spouse],
            },
            Denial {
                clause: "rumours that {a} was a child of {b} proved false",
                denied: &[Rel::Parent],
            },
            Denial {
                clause: "{a} and {b} were often mistaken for siblings",
                denied: &[Rel::Sibling],
            },
        ],
        (Person, Company) => &[
            Denial { clause: "{a} never worked for {b}", denied: &[Rel::Employer] },
            Denial { clause: "{a} applied to {b} without success", denied: &[Rel::Employer] },
            Denial { clause: "it was not {a} who founded {b}", denied: &[Rel::FoundedBy] },
        ],
        (Person, University) => &[
            Denial {
                clause: "{a} did not study at {b} , as is sometimes claimed",
                denied: &[Rel::EducatedAt],
            },
            Denial { clause: "{a} applied to {b} without success", denied: &[Rel::EducatedAt] },
        ],
        (Person, City | Country) => &[
            Denial {
                clause: "{a} was not born in {b} , as some accounts have it",
                denied: &[Rel::BirthPlace, Rel::BirthCountry],
            },
            Denial { clause: "{a} never worked in {b}", denied: &[Rel::WorkPlace] },
        ],
        (Company, Company) => &[
            Denial {
                clause: "talks about a sale of {a} to {b} came to nothing",
                denied: &[Rel::ParentCompany],
            },
            Denial { clause: "{a} was never owned by {b}", denied: &[Rel::ParentCompany] },
        ],
        (Company, City) => &[Denial {
            clause: "{a} considered moving its main office to {b} , but stayed where it was",
            denied: &[Rel::Headquarters],
        }],
        (City, City) => &[Denial {
            clause: "a plan to link {a} and {b} by a treaty was dropped",
            denied: &[Rel::TwinCity],
        }],
        (Work, Person) => {
            &[Denial { clause: "{b} denied having written {a}", denied: &[Rel::Author] }]
        }
        (Work, Company) => {
            &[Denial { clause: "{b} rejected the manuscript of {a}", denied: &[Rel::Publisher] }]
        }
        _ => &[],
    }
}
