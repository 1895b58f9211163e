//! What can be said in the generated world: kinds of things, relations, and which fact follows from
//! which.

use crate::corpus::{Relation, RelationSet};

/// The kinds of things. Several kinds share an entity type, so that the type alone does not give a
/// relation away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Person,
    Company,
    University,
    City,
    Country,
    Work,
    Date,
    Number,
}

impl Kind {
    /// All kinds.
    pub(super) const ALL: [Self; 8] = [
        Self::Person,
        Self::Company,
        Self::University,
        Self::City,
        Self::Country,
        Self::Work,
        Self::Date,
        Self::Number,
    ];

    /// The name under which sentences about it are listed.
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Company => "company",
            Self::University => "university",
            Self::City | Self::Country => "place",
            Self::Work => "work",
            Self::Date => "date",
            Self::Number => "number",
        }
    }

    /// DocRED's entity type.
    pub(super) fn entity_type(self) -> &'static str {
        match self {
            Self::Person => "PER",
            Self::Company | Self::University => "ORG",
            Self::City | Self::Country => "LOC",
            Self::Work => "MISC",
            Self::Date => "TIME",
            Self::Number => "NUM",
        }
    }

    /// Whether it is a date or a number. These belong to one thing only, and too many of them make
    /// a list, not a story.
    pub(super) fn is_leaf(self) -> bool {
        matches!(self, Self::Date | Self::Number)
    }
}

/// The relations, in class order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Rel {
    Spouse,
    Sibling,
    Parent,
    Child,
    BirthPlace,
    BirthCountry,
    BirthDate,
    Employer,
    EducatedAt,
    Headquarters,
    FoundedBy,
    Inception,
    ParentCompany,
    Subsidiary,
    Employees,
    Country,
    Capital,
    CapitalOf,
    TwinCity,
    Population,
    Author,
    Publisher,
    PublicationDate,
    WorkPlace,
}

/// Every relation with its name.
pub(super) const RELATIONS: [(Rel, &str); 24] = [
    (Rel::Spouse, "spouse"),
    (Rel::Sibling, "sibling"),
    (Rel::Parent, "parent"),
    (Rel::Child, "child"),
    (Rel::BirthPlace, "place of birth"),
    (Rel::BirthCountry, "country of birth"),
    (Rel::BirthDate, "date of birth"),
    (Rel::Employer, "employer"),
    (Rel::EducatedAt, "educated at"),
    (Rel::Headquarters, "headquarters location"),
    (Rel::FoundedBy, "founded by"),
    (Rel::Inception, "inception"),
    (Rel::ParentCompany, "parent organization"),
    (Rel::Subsidiary, "subsidiary"),
    (Rel::Employees, "number of employees"),
    (Rel::Country, "country"),
    (Rel::Capital, "capital"),
    (Rel::CapitalOf, "capital of"),
    (Rel::TwinCity, "twin city"),
    (Rel::Population, "population"),
    (Rel::Author, "author"),
    (Rel::Publisher, "publisher"),
    (Rel::PublicationDate, "publication date"),
    (Rel::WorkPlace, "work location"),
];

impl Rel {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        RELATIONS[self as usize].1
    }

    /// The identifier in labels: `R01` to `R24`.
    pub(super) fn id(self) -> String {
        format!("R{:02}", self as usize + 1)
    }

    /// The relation that holds from tail to head whenever this one holds from head to tail.
    pub(super) fn inverse(self) -> Option<Self> {
        match self {
            Self::Spouse | Self::Sibling | Self::TwinCity => Some(self),
            Self::Parent => Some(Self::Child),
            Self::Child => Some(Self::Parent),
            Self::ParentCompany => Some(Self::Subsidiary),
            Self::Subsidiary => Some(Self::ParentCompany),
            Self::Capital => Some(Self::CapitalOf),
            Self::CapitalOf => Some(Self::Capital),
            _ => None,
        }
    }
}

/// `first` from a to b and `second` from b to c ≠ a make `whole` from a to c.
pub(super) const COMPOSITIONS: [(Rel, Rel, Rel); 3] = [
    (Rel::BirthPlace, Rel::Country, Rel::BirthCountry),
    (Rel::Employer, Rel::Headquarters, Rel::WorkPlace),
    (Rel::Parent, Rel::Child, Rel::Sibling),
];

/// A fact between two things, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Triple {
    pub head: usize,
    pub tail: usize,
    pub rel: Rel,
}

impl Triple {
    pub(super) fn new(head: usize, rel: Rel, tail: usize) -> Self {
        Self { head, tail, rel }
    }

    /// The fact itself, its inverse, and the country that a capital lies in.
    pub(super) fn with_implied(self) -> Vec<Self> {
        let mut all = vec![self];
        all.extend(self.rel.inverse().map(|rel| Self::new(self.tail, rel, self.head)));
        let capital = all.iter().find(|fact| fact.rel == Rel::CapitalOf).copied();
        all.extend(capital.map(|fact| Self::new(fact.head, Rel::Country, fact.tail)));
        all
    }
}

/// The relations of the generated world, in class order.
pub fn world_relations() -> RelationSet {
    let relations =
        RELATIONS.iter().map(|(rel, name)| Relation { id: rel.id(), name: (*name).to_owned() });
    relations.collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_are_mutual() {
        for (class, (rel, _)) in RELATIONS.iter().enumerate() {
            assert_eq!(*rel as usize, class);
            if let Some(inverse) = rel.inverse() {
                assert_eq!(inverse.inverse(), Some(*rel));
            }
        }
    }

    #[test]
    fn a_capital_lies_in_its_country() {
        let facts = Triple::new(1, Rel::Capital, 2).with_implied();
        assert_eq!(
            facts,
            [
                Triple::new(1, Rel::Capital, 2),
                Triple::new(2, Rel::CapitalOf, 1),
                Triple::new(2, Rel::Country, 1)
            ]
        );
        assert_eq!(world_relations().get(16).unwrap().id, "R17");
    }
}
