//! Sentences that name things together and express no relation of the world, in words close to
//! those that do.

use super::schema::{
    Kind::{self, City, Company, Country, Date, Number, Person, University, Work},
    Rel,
};

/// Clauses about `{a}` and `{b}`, by what they are; none for pairs of which there is nothing to say
/// in this order.
pub(super) fn clauses(first: Kind, second: Kind) -> &'static [&'static str] {
    match (first, second) {
        (Person, Person) => &[
            "{a} met {b} at a dinner",
            "{a} wrote a letter to {b} about the harvest",
            "the wedding was attended by {a} and {b}",
            "{a} admired {b} from a distance",
            "{a} grew up in the same street as {b}",
            "{a} refused to answer {b}",
            "{a} spoke about parents and children in a debate with {b}",
            "{a} painted a portrait of {b}",
        ],
        (Person, Company) => &[
            "{a} declined an offer from {b}",
            "{a} wrote a critical report about {b}",
            "{a} visited {b} twice",
            "a lawsuit set {a} against {b}",
            "{a} gave a lecture at {b} as a guest",
            "{a} bought shares in {b}",
            "{a} lost money with {b}",
        ],
        (Person, University) => &[
            "{a} gave a lecture at {b} as a guest",
            "{a} left a small library to {b}",
            "{a} wrote a critical report about {b}",
            "{a} was invited to a debate at {b}",
            "a bust of {a} stands in a hall of {b}",
        ],
        (Person, City | Country) => &[
            "{a} visited {b} on a holiday",
            "{a} passed through {b} on the way north",
            "a street in {b} is named after {a}",
            "{a} gave a concert in {b}",
            "a portrait of {a} hangs in a museum in {b}",
            "the newspapers of {b} attacked {a}",
            "{a} spent a summer in {b}",
        ],
        (Person, Date) => &[
            "a newspaper of {b} mentions the family of {a}",
            "{a} owned a coin that was struck on {b}",
            "a calendar page of {b} hung over the desk of {a}",
            "on {b} a storm destroyed the house that {a} would later buy",
            "a film about {a} begins on {b}",
            "historians connect the story of {a} with the events of {b}",
        ],
        (Person, Number) => &[
            "{a} left {b} to a charity",
            "{a} once paid {b} for a painting",
            "an album of {a} contains {b} stamps",
            "{a} owed {b} to a bank",
        ],
        (Company, Company) => &[
            "{a} competed with {b} for the contract",
            "{a} and {b} signed a supply agreement",
            "{a} sued {b} over a patent",
            "{a} sponsored a prize together with {b}",
            "a report compared {a} with {b}",
        ],
        (Company, University) => &[
            "{a} paid for a new laboratory at {b}",
            "{a} and {b} signed an agreement on research",
            "a report on {a} was written at {b}",
            "{a} delivered furniture to {b}",
        ],
        (Company, City | Country) => &[
            "{a} opened a small shop in {b}",
            "{a} ships its goods to {b}",
            "{a} closed its branch in {b}",
            "protests against {a} were held in {b}",
            "{a} took part in a fair in {b}",
            "{a} sells little in {b}",
            "a fire in {b} delayed the deliveries of {a}",
        ],
        (Company, Date) => &[
            "on {b} {a} announced new prices",
            "{a} held its yearly meeting on {b}",
            "a strike at {a} began on {b}",
            "{a} changed its logo on {b}",
            "on {b} the shares of {a} fell",
            "{a} moved into a new building on {b}",
        ],
        (Company, Number) => &[
            "{a} sold {b} units last year",
            "{a} received {b} complaints",
            "{a} paid a fine of {b}",
            "a fund gave {b} to {a}",
            "{a} printed {b} leaflets",
        ],
        (University, University) => &[
            "a team from {a} lost to one from {b}",
            "{a} and {b} exchange lecturers",
            "a league table puts {a} before {b}",
        ],
        (University, City | Country) => &[
            "scholars from {a} dug up a ship near {b}",
            "{a} sent an expedition to {b}",
            "{a} keeps a collection of maps of {b}",
            "a choir from {a} sang in {b}",
        ],
        (University, Date) => &[
            "{a} held a ceremony on {b}",
            "on {b} a fire broke out at {a}",
            "a library at {a} was opened on {b}",
        ],
        (University, Number) => &[
            "a fund gave {b} to {a}",
            "the library of {a} holds {b} volumes",
            "{a} spent {b} on a new roof",
        ],
        (City | Country, City | Country) => &[
            "a railway runs from {a} to {b}",
            "{a} is often compared with {b}",
            "travellers from {a} rarely reach {b}",
            "{a} lost a football match against {b}",
            "the weather in {a} is milder than in {b}",
            "merchants carried salt from {a} to {b}",
        ],
        (City | Country, Date) => &[
            "on {b} a storm reached {a}",
            "a flood hit {a} on {b}",
            "a new bridge in {a} was opened on {b}",
            "on {b} a comet was seen over {a}",
        ],
        (City | Country, Number) => &[
            "{a} welcomed {b} visitors last year",
            "a storm in {a} damaged {b} trees",
            "{a} spent {b} on a new bridge",
            "{b} people signed a petition in {a}",
            "a library in {a} holds {b} volumes",
        ],
        (Work, Person) => &[
            "{b} reviewed {a} without mercy",
            "{a} is dedicated to {b}",
            "{b} kept a copy of {a} on the desk",
            "{a} was translated by {b}",
            "a character in {a} resembles {b}",
            "{b} read {a} aloud to friends",
        ],
        (Work, Company | University) => &[
            "{a} mentions {b} in passing",
            "{b} gave copies of {a} to its guests",
            "{a} was discussed at a meeting of {b}",
            "{b} bought the film rights to {a}",
            "a poster for {a} hung in the lobby of {b}",
        ],
        (Work, City | Country) => &[
            "a chapter of {a} is set in {b}",
            "{a} was read on a stage in {b}",
            "a museum in {b} shows a page of {a}",
            "{a} was banned in {b}",
        ],
        (Work, Work) => &[
            "a critic preferred {a} to {b}",
            "{a} borrows a scene from {b}",
            "readers of {a} rarely like {b}",
        ],
        (Work, Date) => &[
            "a copy of {a} was sold at auction on {b}",
            "on {b} {a} won a prize",
            "a reading of {a} took place on {b}",
            "{a} was banned on {b}",
            "on {b} a translation of {a} was announced",
            "a critic attacked {a} on {b}",
        ],
        (Work, Number) => &[
            "{b} copies of {a} were lost in a fire",
            "a collector paid {b} for a copy of {a}",
            "a translation of {a} runs to {b} lines",
        ],
        _ => &[],
    }
}

/// A clause that denies relations between `{a}` and `{b}`. It is not told of pairs that the
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
            clause: "a outline to link {a} and {b} by a treaty was dropped",
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

/// Clauses for any two things that are neither dates nor numbers.
pub(super) const ANY_TWO: [&str; 5] = [
    "a report on {a} also mentions {b}",
    "the archive files {a} next to {b}",
    "an article names {a} and {b} in one breath",
    "nothing is known of a link between {a} and {b}",
    "a speaker brought up {a} and then {b}",
];

/// Clauses for one thing alone.
pub(super) const ANY_ONE: [&str; 5] = [
    "little else is recorded about {a}",
    "a note in the margin refers to {a}",
    "the account also names {a}",
    "readers may remember {a} from other reports",
    "several letters mention {a}",
];
