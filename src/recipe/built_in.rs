//! The recipes inside the program, by name, for those who have it without its sources.

use std::path::Path;

/// Name and text of each.
const RECIPES: [(&str, &str); 2] = [
    ("quickstart", include_str!("../../jobs/quickstart.toml")),
    ("smoke", include_str!("../../jobs/smoke.toml")),
];

/// What to name instead of a recipe that is not there.
pub(super) const HINT: &str =
    "name a file, or one of the recipes inside the program: quickstart or smoke";

/// The text of the recipe that a path names, such as `smoke`.
pub(super) fn built_in(path: &Path) -> Option<&'static str> {
    RECIPES.iter().find(|(name, _)| path == Path::new(name)).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn each_is_read_by_its_name_and_named_by_the_hint() {
        for (name, _) in RECIPES {
            assert_eq!(Recipe::load(Path::new(name), &[]).unwrap().name, name);
            assert!(HINT.contains(name), "{name}");
        }
        let error = Recipe::load(Path::new("nowhere/smoke"), &[]).unwrap_err();
        assert_eq!((error.exit_code(), error.hint()), (64, Some(HINT)));
    }
}
