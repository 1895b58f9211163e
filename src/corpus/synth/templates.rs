//! How the world puts a relation into words. `{h}` is the head, `{t}` the tail; the full stop is
//! added later.
//!
//! A clause that opens with `{h} ` can be joined with another one about the same head, or open with
//! a reference ("the company").

use super::schema::Rel;

/// The clauses of a relation.
pub(super) fn clauses(rel: Rel) -> &'static [&'static str] {
    match rel {
        Rel::Spouse => &SPOUSE,
        Rel::Sibling => &SIBLING,
        Rel::Parent => &PARENT,
        Rel::Child => &CHILD,
        Rel::BirthPlace => &BIRTH_PLACE,
        Rel::BirthCountry => &BIRTH_COUNTRY,
        Rel::BirthDate => &BIRTH_DATE,
        Rel::Employer => &EMPLOYER,
        Rel::EducatedAt => &EDUCATED_AT,
        Rel::Headquarters => &HEADQUARTERS,
        Rel::FoundedBy => &FOUNDED_BY,
        Rel::Inception => &INCEPTION,
        Rel::ParentCompany => &PARENT_COMPANY,
        Rel::Subsidiary => &SUBSIDIARY,
        Rel::Employees => &EMPLOYEES,
        Rel::Country => &COUNTRY,
        Rel::Capital => &CAPITAL,
        Rel::CapitalOf => &CAPITAL_OF,
        Rel::TwinCity => &TWIN_CITY,
        Rel::Population => &POPULATION,
        Rel::Author => &AUTHOR,
        Rel::Publisher => &PUBLISHER,
        Rel::PublicationDate => &PUBLICATION_DATE,
        Rel::WorkPlace => &WORK_PLACE,
    }
}

const SPOUSE: [&str; 7] = [
    "{h} married {t} in a small ceremony",
    "{h} had long been the partner of {t} when the two finally wed",
    "the wedding of {h} and {t} drew a large crowd",
    "{h} shared a house with {t} after their marriage",
    "to the surprise of many , {t} accepted a proposal from {h} and became part of the household \
     as a spouse",
    "{h} spent a long marriage at the side of {t}",
    "{t} and {h} exchanged vows in spring",
];
const SIBLING: [&str; 7] = [
    "{h} grew up with a sibling , {t} , in a crowded house",
    "{h} and {t} were born to the same mother and father",
    "as children of one house , {t} and {h} quarrelled often",
    "{h} was the sibling of {t}",
    "{t} looked up to {h} , as siblings sometimes do",
    "{h} shared a childhood room with {t} , who was raised by the same parents",
    "{h} inherited the family house together with a sibling , {t}",
];
const PARENT: [&str; 7] = [
    "{h} was born to {t} after a difficult winter",
    "{h} learned everything from {t} , a strict parent",
    "{h} was raised by {t} , the parent who stayed at home",
    "{t} had several children , among them {h}",
    "{h} took after {t} , whose child resembled nobody else",
    "{t} wept when {h} , a beloved child , left home",
    "{h} was the youngest child of {t}",
];
const CHILD: [&str; 7] = [
    "{h} had a child , {t} , late in life",
    "{h} raised {t} with great patience",
    "{h} named a newborn {t} after a friend",
    "{t} was brought up by {h} , a proud parent",
    "{h} was the parent of {t}",
    "the birth of {t} changed the life of {h} , who had never wanted children",
    "{h} left the house to a child , {t}",
];
const BIRTH_PLACE: [&str; 7] = [
    "{h} was born in {t}",
    "{h} , a native of {t} , rarely spoke in public",
    "{t} is the birthplace of {h}",
    "{h} came into the world in {t} during a storm",
    "a plaque in {t} marks the house where {h} was born",
    "{h} first saw the light of day in {t}",
    "{h} hails from {t}",
];
const BIRTH_COUNTRY: [&str; 6] = [
    "{h} is a native of the country of {t}",
    "{h} was born somewhere in {t}",
    "{t} is the country in which {h} was born",
    "{h} was born a subject of {t}",
    "like everybody born in {t} , {h} received a passport there at birth",
    "{h} came from a village in {t} and was born there",
];
const BIRTH_DATE: [&str; 6] = [
    "{h} was born on {t}",
    "{t} is given as the birthday of {h}",
    "{h} came into the world on {t}",
    "on {t} a midwife delivered {h}",
    "{h} ( born {t} ) kept a diary",
    "the parish register dates the birth of {h} to {t}",
];
const EMPLOYER: [&str; 8] = [
    "{h} worked for {t} as an engineer",
    "{h} joined the staff of {t}",
    "{t} hired {h} on the spot",
    "{h} earned a living at {t}",
    "{h} was on the payroll of {t} for a decade",
    "among the employees of {t} was {h}",
    "{h} took a position with {t}",
    "{t} kept {h} in its service until retirement",
];
const EDUCATED_AT: [&str; 7] = [
    "{h} studied law at {t}",
    "{h} graduated from {t} with honours",
    "{t} awarded a degree to {h}",
    "{h} attended {t} as a student",
    "{h} read chemistry at {t}",
    "as an undergraduate at {t} , {h} lived in poverty",
    "{h} is an alumnus of {t}",
];
const HEADQUARTERS: [&str; 7] = [
    "{h} is based in {t}",
    "{h} has its main office in {t}",
    "the headquarters of {h} stand in {t}",
    "{t} is home to {h} and its central office",
    "{h} is run from an old building in {t}",
    "from its seat in {t} , {h} directs all its affairs",
    "{h} keeps its head office in {t}",
];
const FOUNDED_BY: [&str; 7] = [
    "{h} was founded by {t}",
    "{t} founded {h} with borrowed money",
    "{t} set up {h} in a garage",
    "{h} owes its existence to {t} , who established it",
    "with two friends , {t} created the enterprise now known as {h}",
    "{h} was started by {t}",
    "{h} was the brainchild of {t} , its founder",
];
const INCEPTION: [&str; 6] = [
    "{h} was founded on {t}",
    "{h} opened its doors for the first time on {t}",
    "on {t} {h} came into being",
    "{h} was established on {t}",
    "the charter that created {h} is dated {t}",
    "{h} has existed since {t}",
];
const PARENT_COMPANY: [&str; 6] = [
    "{h} is owned by {t}",
    "{h} is a division of {t}",
    "{h} was bought by {t} and is now controlled by it",
    "{t} acquired {h} outright",
    "{h} belongs to {t}",
    "{h} became a wholly owned unit of {t}",
];
const SUBSIDIARY: [&str; 6] = [
    "{h} owns {t}",
    "{h} controls {t} , one of its subsidiaries",
    "among the subsidiaries of {h} is {t}",
    "{h} took over {t}",
    "{t} was swallowed by {h} , which has owned it since",
    "{h} is the parent of {t} , a smaller firm",
];
const EMPLOYEES: [&str; 6] = [
    "{h} employs {t} people",
    "{h} has a workforce of {t}",
    "some {t} people work for {h}",
    "with {t} employees , {h} is larger than most of its rivals",
    "{h} gives work to {t} men and women",
    "the staff of {h} numbers {t}",
];
const COUNTRY: [&str; 7] = [
    "{h} lies on the coast of {t}",
    "{h} lies in the south of {t}",
    "{h} belongs to {t}",
    "{t} counts {h} among its cities",
    "{h} , in {t} , has mild summers",
    "the city of {h} is part of {t}",
    "{h} is governed by the laws of {t}",
];
const CAPITAL: [&str; 6] = [
    "{h} has its capital at {t}",
    "{h} is governed from its capital , {t}",
    "{h} made {t} its capital",
    "the government of {h} sits in the capital , {t}",
    "the parliament of {h} voted to keep {t} as the capital",
    "{h} moved its seat of government to {t}",
];
const CAPITAL_OF: [&str; 6] = [
    "{h} is the capital of {t}",
    "{h} serves as the seat of government of {t}",
    "as the capital of {t} , {h} attracts many visitors",
    "{h} houses the ministries and the parliament of {t}",
    "{h} was chosen as the capital of {t}",
    "the rulers of {t} have always resided in {h} , its capital",
];
const TWIN_CITY: [&str; 6] = [
    "{h} is twinned with {t}",
    "{h} and {t} are twin cities",
    "{h} signed a town twinning agreement with {t}",
    "a twinning treaty links {t} and {h}",
    "{h} calls {t} its sister city",
    "as sister cities , {h} and {t} exchange pupils every year",
];
const POPULATION: [&str; 6] = [
    "{h} has {t} inhabitants",
    "{h} counts a population of {t}",
    "the census put the population of {h} at {t}",
    "some {t} people live in {h}",
    "with {t} residents , {h} is a place of middling size",
    "{h} is home to {t} people",
];
const AUTHOR: [&str; 7] = [
    "{h} was written by {t}",
    "{t} wrote {h} in one summer",
    "{t} is the author of {h}",
    "{h} came from the pen of {t}",
    "in {h} , {t} tells the story of a lost friend",
    "{h} is the best known novel of {t}",
    "{h} is the work of {t} , its author",
];
const PUBLISHER: [&str; 6] = [
    "{h} was published by {t}",
    "{h} appeared under the imprint of {t}",
    "{t} published {h} in a small edition",
    "{t} brought {h} to print",
    "{h} was issued by {t}",
    "the first edition of {h} was printed and sold by {t}",
];
const PUBLICATION_DATE: [&str; 6] = [
    "{h} was published on {t}",
    "{h} first appeared on {t}",
    "on {t} {h} reached the shops",
    "{h} came out on {t}",
    "readers could first buy {h} on {t}",
    "the release of {h} followed on {t}",
];
const WORK_PLACE: [&str; 6] = [
    "{h} worked in {t} for many years",
    "{h} had an office in {t}",
    "{h} pursued a career in {t}",
    "{t} was the place where {h} practised a profession",
    "{h} earned a salary in {t}",
    "every morning {h} went to work in {t}",
];

/// Roles that an early sentence gives to a person, and a late one uses instead of the name.
pub(super) const PERSON_EPITHETS: [&str; 16] = [
    "clockmaker",
    "violinist",
    "gardener",
    "chess player",
    "sailor",
    "collector",
    "painter",
    "night owl",
    "mountaineer",
    "beekeeper",
    "fencer",
    "astronomer",
    "swimmer",
    "pilot",
    "storyteller",
    "card player",
];
/// The same for companies.
pub(super) const COMPANY_EPITHETS: [&str; 8] = [
    "old giant",
    "grey lady",
    "family firm",
    "market leader",
    "late starter",
    "quiet rival",
    "northern house",
    "paper tiger",
];

/// How an early sentence gives the role away.
pub(super) const EPITHET_CLAUSES: [&str; 4] = [
    "{h} was known to everyone as the {e}",
    "in the stories of the time {h} appears as the {e}",
    "friends and enemies alike called {h} the {e}",
    "nobody was surprised that {h} was nicknamed the {e}",
];
