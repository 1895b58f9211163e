//! SVG into pixels, set in a font that is linked into the program: a node of a cluster often has
//! none. Not for: drawing (`chart`).

use std::sync::{Arc, OnceLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

use crate::{Error, Result};

/// The family that the font calls itself.
const FAMILY: &str = "DejaVu Sans";
/// Pixels a unit of the drawing: sharp on paper and on dense screens.
const SCALE: f32 = 2.5;

/// Draws an SVG file of ours as PNG, at [`SCALE`] pixels a unit.
///
/// # Errors
/// A bug error for a drawing that is no SVG or has no size.
pub(crate) fn png(svg: &str) -> Result<Vec<u8>> {
    let bug = |what: String| Error::Bug(format!("a chart cannot be drawn: {what}"));
    let options = Options { font_family: FAMILY.to_owned(), fontdb: fonts(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| bug(error.to_string()))?;
    let (width, height) =
        ((tree.size().width() * SCALE).ceil() as u32, (tree.size().height() * SCALE).ceil() as u32);
    let mut pixels =
        Pixmap::new(width, height).ok_or_else(|| bug(format!("{width} × {height} pixels")))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| bug(error.to_string()))
}

/// The one font, which stands for every family; parsed once.
fn fonts() -> Arc<Database> {
    static FONTS: OnceLock<Arc<Database>> = OnceLock::new();
    let load = || {
        let mut fonts = Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family(FAMILY);
        Arc::new(fonts)
    };
    Arc::clone(FONTS.get_or_init(load))
}

#[cfg(test)]
mod tests {
    use super::super::chart::standalone;
    use super::*;

    /// Pixels that are not white.
    fn ink(svg: &str) -> (u32, u32, usize) {
        let image = Pixmap::decode_png(&png(&standalone(svg)).unwrap()).unwrap();
        (
            image.width(),
            image.height(),
            image.pixels().iter().filter(|pixel| pixel.red() < 250 || pixel.blue() < 250).count(),
        )
    }

    #[test]
    fn text_appears_without_any_font_on_the_machine() {
        let draw = |text: &str| {
            format!("<svg viewBox=\"0 0 100 40\"><text x=\"5\" y=\"20\">{text}</text></svg>")
        };
        let (width, height, none) = ink(&draw(""));
        assert_eq!((width, height, none), (250, 100, 0));
        // Every sign that charts use by themselves has a picture of its own.
        for text in ["F1", "θ", "≥", "∞", "–", "·", "…", "Ж", "é"] {
            assert!(ink(&draw(text)).2 > 4, "{text}");
        }
        assert!(ink(&draw("relation")).2 > ink(&draw("rel")).2);
    }

    #[test]
    fn styles_are_understood() {
        let bar = |class: &str| {
            format!(
                "<svg viewBox=\"0 0 10 10\"><rect class=\"{class}\" width=\"10\" \
                 height=\"10\"/></svg>"
            )
        };
        let corner = |class: &str| {
            Pixmap::decode_png(&png(&standalone(&bar(class))).unwrap())
                .unwrap()
                .pixel(12, 12)
                .unwrap()
        };
        let colour =
            |class: &str| (corner(class).red(), corner(class).green(), corner(class).blue());
        assert_eq!((colour("b s0"), colour("b s1")), ((0x00, 0x72, 0xb2), (0xd5, 0x5e, 0x00)));
    }

    #[test]
    fn what_is_no_drawing_is_told() {
        assert_eq!(png("<svg").unwrap_err().exit_code(), 70);
    }
}
