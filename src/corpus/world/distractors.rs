//! Sentences that name things together and express no relation of the world, in words close to those that do.

/// Clauses about `{a}` and `{b}` by their entity types.
pub(super) fn clauses(first: &str, second: &str) -> &'static [&'static str] {
    match (first, second) {
        ("PER", "PER") => &PER_PER,
        ("PER", "ORG") => &PER_ORG,
        ("PER", "LOC") => &PER_LOC,
        ("PER", "TIME") => &PER_TIME,
        ("ORG", "ORG") => &ORG_ORG,
        ("ORG", "LOC") => &ORG_LOC,
        ("ORG", "TIME") => &ORG_TIME,
        ("ORG", "NUM") => &ORG_NUM,
        ("LOC", "LOC") => &LOC_LOC,
        ("LOC", "NUM") => &LOC_NUM,
        ("MISC", "PER") => &MISC_PER,
        ("MISC", "ORG") => &MISC_ORG,
        ("MISC", "TIME") => &MISC_TIME,
        _ => &[],
    }
}

const PER_PER: [&str; 10] = [
    "{a} met {b} at a dinner",
    "{a} was never married to {b} , whatever the papers said",
    "rumours that {a} was a child of {b} proved false",
    "{a} and {b} were often mistaken for siblings",
    "{a} wrote a letter to {b} about the harvest",
    "the wedding was attended by {a} and {b}",
    "{a} admired {b} from a distance",
    "{a} grew up in the same street as {b}",
    "{a} refused to answer {b}",
    "{a} spoke about parents and children in a debate with {b}",
];
const PER_ORG: [&str; 10] = [
    "{a} never worked for {b}",
    "{a} declined an offer from {b}",
    "{a} wrote a critical report about {b}",
    "{a} visited {b} twice",
    "a lawsuit set {a} against {b}",
    "{a} gave a lecture at {b} as a guest",
    "{a} bought shares in {b}",
    "{a} applied to {b} without success",
    "{a} did not study at {b} , as is sometimes claimed",
    "it was not {a} who founded {b}",
];
const PER_LOC: [&str; 10] = [
    "{a} visited {b} on a holiday",
    "{a} was not born in {b} , as some accounts have it",
    "{a} passed through {b} on the way north",
    "a street in {b} is named after {a}",
    "{a} gave a concert in {b}",
    "{a} dreamed of moving to {b}",
    "a portrait of {a} hangs in a museum in {b}",
    "{a} never worked in {b}",
    "the newspapers of {b} attacked {a}",
    "{a} spent a summer in {b}",
];
const PER_TIME: [&str; 7] = [
    "on {b} {a} gave a speech",
    "{a} fell ill on {b}",
    "a letter by {a} is dated {b}",
    "{a} was seen in public on {b}",
    "on {b} a photograph was taken of {a}",
    "{a} returned from a journey on {b}",
    "the diary of {a} breaks off on {b}",
];
const ORG_ORG: [&str; 7] = [
    "{a} competed with {b} for the contract",
    "talks about a sale of {a} to {b} came to nothing",
    "{a} and {b} signed a supply agreement",
    "{a} sued {b} over a patent",
    "{a} was never owned by {b}",
    "{a} sponsored a prize together with {b}",
    "a report compared {a} with {b}",
];
const ORG_LOC: [&str; 8] = [
    "{a} opened a small shop in {b}",
    "{a} ships its goods to {b}",
    "{a} closed its branch in {b}",
    "{a} considered moving its main office to {b} , but stayed where it was",
    "protests against {a} were held in {b}",
    "{a} took part in a fair in {b}",
    "{a} sells little in {b}",
    "a fire in {b} delayed the deliveries of {a}",
];
const ORG_TIME: [&str; 6] = [
    "on {b} {a} announced new prices",
    "{a} held its yearly meeting on {b}",
    "a strike at {a} began on {b}",
    "{a} changed its logo on {b}",
    "on {b} the shares of {a} fell",
    "{a} moved into a new building on {b}",
];
const ORG_NUM: [&str; 5] = [
    "{a} sold {b} units last year",
    "{a} received {b} complaints",
    "{a} paid a fine of {b}",
    "a fund gave {b} to {a}",
    "{a} printed {b} leaflets",
];
const LOC_LOC: [&str; 7] = [
    "a railway runs from {a} to {b}",
    "{a} is often compared with {b}",
    "travellers from {a} rarely reach {b}",
    "{a} lost a football match against {b}",
    "the weather in {a} is milder than in {b}",
    "merchants carried salt from {a} to {b}",
    "a plan to link {a} and {b} by a treaty was dropped",
];
const LOC_NUM: [&str; 5] = [
    "{a} welcomed {b} visitors last year",
    "a storm in {a} damaged {b} trees",
    "{a} spent {b} on a new bridge",
    "{b} people signed a petition in {a}",
    "the library of {a} holds {b} volumes",
];
const MISC_PER: [&str; 7] = [
    "{b} reviewed {a} without mercy",
    "{a} is dedicated to {b}",
    "{b} denied having written {a}",
    "{b} kept a copy of {a} on the desk",
    "{a} was translated by {b}",
    "a character in {a} resembles {b}",
    "{b} read {a} aloud to friends",
];
const MISC_ORG: [&str; 6] = [
    "{b} rejected the manuscript of {a}",
    "{a} mentions {b} in passing",
    "{b} gave copies of {a} to its guests",
    "{a} was discussed at a meeting of {b}",
    "{b} bought the film rights to {a}",
    "a poster for {a} hung in the lobby of {b}",
];
const MISC_TIME: [&str; 6] = [
    "a copy of {a} was sold at auction on {b}",
    "on {b} {a} won a prize",
    "a reading of {a} took place on {b}",
    "{a} was banned on {b}",
    "on {b} a translation of {a} was announced",
    "a critic attacked {a} on {b}",
];

/// Clauses for any two things.
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
