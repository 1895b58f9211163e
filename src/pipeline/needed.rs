//! Whether a recipe names documents for every role that its variants need, told before anything is
//! written. Not for: whether the files are there (`sources`), nor for what they hold (`data`).

use super::data::Role;
use crate::Result;
use crate::recipe::Recipe;
use crate::systems::Variant;

/// Makes sure that the recipe names the documents that its variants need.
///
/// # Errors
/// [`Error::Recipe`](crate::Error::Recipe) naming the role without documents.
pub fn check_roles(recipe: &Recipe) -> Result<()> {
    let roles = [Role::Human, Role::Dev, Role::Distant];
    let missing = roles.into_iter().find(|&role| needs(recipe, role) && !names(recipe, role));
    missing.map_or(Ok(()), |role| Err(role.missing()))
}

fn needs(recipe: &Recipe, role: Role) -> bool {
    let any = |what: fn(Variant) -> bool| recipe.variants.iter().any(|&variant| what(variant));
    match role {
        Role::Human => recipe.data.source.is_empty() || any(|variant| variant.is_ranked()),
        Role::Distant => any(|variant| variant.is_pretrained() || variant.teacher().is_some()),
        Role::Dev => true,
        Role::Test => false,
    }
}

fn names(recipe: &Recipe, role: Role) -> bool {
    let data = &recipe.data;
    let split = |share: fn(f64, f64) -> f64| {
        data.split.as_ref().is_some_and(|split| share(split.dev_share, split.test_share) > 0.0)
    };
    let own = match role {
        Role::Human => {
            let dev = data.train_on_dev && !data.dev.is_empty();
            !data.human.is_empty() || dev || split(|dev, test| 1.0 - dev - test)
        }
        Role::Distant => !data.distant.is_empty() || data.label.is_some(),
        Role::Dev => !data.dev.is_empty() || split(|dev, _| dev),
        Role::Test => !data.test.is_empty() || split(|_, test| test),
    };
    own || data.synth.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_names_documents_for_every_role_that_it_needs() {
        let human = "[data]\nhuman = [\"a\"]\n";
        let baseline = "variants = [\"baseline\"]\n";
        for (text, missing) in [
            (String::new(), Some("human")),
            (format!("{baseline}{human}"), Some("dev")),
            (format!("{baseline}{human}dev = [\"b\"]"), None),
            (format!("{human}dev = [\"b\"]"), Some("distant")),
            (format!("system = \"atlop\"\n{human}dev = [\"b\"]"), None),
            (format!("{human}dev = [\"b\"]\ndistant = [\"c\"]"), None),
            (format!("{baseline}[data.split]\nfiles = [\"a\"]\ndev_share = 0.2"), None),
            (format!("{baseline}[data.split]\nfiles = [\"a\"]\ndev_share = 0.0"), Some("dev")),
            (format!("variants = [\"student\"]\n{human}dev = [\"b\"]"), Some("distant")),
            ("[data.synth]".into(), None),
            (
                format!(
                    "{baseline}[data]\ndev = [\"b\"]\n[[data.source]]\nname = \"s\"\nkind = \
                     \"llm\"\nfiles = [\"c\"]"
                ),
                None,
            ),
        ] {
            let found = check_roles(&Recipe::parse(&text, "r", &[]).unwrap());
            let Some(role) = missing else {
                found.unwrap_or_else(|error| panic!("{text}: {error}"));
                continue;
            };
            let error = found.expect_err(&text);
            let named = error.to_string().contains(&format!("no {role} documents"));
            let hint = error.hint().unwrap_or_default();
            assert!(named && hint.contains(&format!("data.{role}")), "{text}: {error}, {hint}");
        }
    }
}
