//! What a run leaves for people: metrics, TensorBoard events, the HTML report and the model card.
//!
//! Everything is drawn from serialisable values that the stages fill in. Not for: computing scores
//! (`eval`) or training (`train`).

mod audit;
mod chart;
mod data;
mod evaluation;
mod gantt;
mod html;
mod live;
mod model_card;
mod paper;
mod plots;
mod table;

pub use audit::AuditPage;
pub use data::{
    DroppedLabel, LossCurve, NamedValue, ReferenceRow, RelationLabels, ReportData, Series,
    StageTime, TextPart, TextRole, VariantScores, sentences_of_pair,
};
pub use evaluation::EvaluationPage;
pub use gantt::{GanttBar, GanttRow, gantt};
pub use html::{duration, write_report};
pub use live::{LiveChart, StageCurves, live_charts, live_page};
pub use model_card::{CardScore, ModelCard, markdown_table};
pub use paper::published_results;
pub use plots::write_plots;
pub use table::{TablePage, TablePageChart, TablePageRow};
