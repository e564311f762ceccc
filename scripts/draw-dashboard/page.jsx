// The page that scripts/draw-dashboard.mjs takes a picture of: Grafana's own components (@grafana/ui) for panels, graphs,
// numbers and legends. `window.drawing` holds the dashboard and what Prometheus answered.
import {
  createTheme,
  dateTime,
  FieldType,
  getDisplayProcessor,
  getFieldDisplayName,
  getMinMaxAndDelta,
  toDataFrame,
} from "@grafana/data";
import { BigValue, GlobalStyles, PanelChrome, ThemeContext, TimeSeries } from "@grafana/ui";
import { createRoot } from "react-dom/client";

const { dashboard, answers, variables, from, to, step, width } = window.drawing;
const theme = createTheme({ colors: { mode: "dark" } });
const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
// Grafana's grid: 24 columns, rows of 30 pixels, 8 pixels between.
const [numColumns, rowHeight, gap] = [24, 30, 8];

/** What Grafana takes where a panel says nothing. */
const graphDefaults = {
  drawStyle: "line",
  lineInterpolation: "linear",
  lineWidth: 1,
  fillOpacity: 0,
  gradientMode: "none",
  barAlignment: 0,
  stacking: { mode: "none", group: "A" },
  axisGridShow: true,
  axisPlacement: "auto",
  showPoints: "auto",
  pointSize: 5,
  lineStyle: { fill: "solid" },
  spanNulls: false,
};

function framesOf(panel) {
  const { custom, thresholds, ...defaults } = panel.fieldConfig.defaults;
  const config = { color: { mode: "palette-classic" }, ...defaults, custom: { ...graphDefaults, ...custom } };
  if (thresholds) {
    // JSON has no -Infinity; Grafana takes null for it.
    const steps = thresholds.steps.map((step) => ({ ...step, value: step.value ?? Number.NEGATIVE_INFINITY }));
    config.thresholds = { ...thresholds, steps };
  }
  const configOf = (refId) => {
    const own = { ...config, custom: { ...config.custom } };
    for (const { matcher, properties } of panel.fieldConfig.overrides) {
      if (matcher.id !== "byFrameRefID") throw new Error(`${panel.title}: ${matcher.id} is not understood here`);
      if (matcher.options !== refId) continue;
      for (const { id, value } of properties) {
        if (id.startsWith("custom.")) own.custom[id.slice("custom.".length)] = value;
        else own[id] = value;
      }
    }
    return own;
  };
  const frames = answers[panel.id].map(({ refId, legend, labels, times, values }) =>
    toDataFrame({
      refId,
      fields: [
        { name: "Time", type: FieldType.time, values: times, config: { interval: step * 1000 } },
        {
          name: "Value",
          type: FieldType.number,
          values,
          labels,
          config: { ...configOf(refId), displayNameFromDS: legend },
        },
      ],
    }),
  );
  for (const [index, frame] of frames.entries()) {
    for (const field of frame.fields) {
      field.state = { seriesIndex: index };
      field.state.displayName = getFieldDisplayName(field, frame, frames);
      field.state.range = getMinMaxAndDelta(field);
      field.display = getDisplayProcessor({ field, theme, timeZone: "utc" });
    }
  }
  return frames;
}

function Graph({ panel, frames, width, height }) {
  return (
    <TimeSeries
      frames={frames}
      timeRange={timeRange}
      timeZone="utc"
      width={width}
      height={height}
      legend={{ showLegend: true, calcs: [], ...panel.options.legend }}
    />
  );
}

function Stat({ panel, frames: [frame], width, height }) {
  const [time, field] = frame.fields;
  const value = field.display(field.values.findLast((value) => value !== null));
  const sparkline = { x: time, y: field, timeRange };
  const { colorMode, graphMode } = panel.options;
  return <BigValue {...{ theme, width, height, value, sparkline, colorMode, graphMode }} textMode="value" />;
}

const kinds = { timeseries: Graph, stat: Stat };

function Panel({ panel, width, height }) {
  const frames = framesOf(panel);
  const Kind = kinds[panel.type];
  return (
    <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
      {(innerWidth, innerHeight) =>
        frames.length > 0 ? (
          <Kind panel={panel} frames={frames} width={innerWidth} height={innerHeight} />
        ) : (
          <div className="nothing" style={{ height: innerHeight }}>
            No data: no GPU here
          </div>
        )
      }
    </PanelChrome>
  );
}

function Page() {
  const column = (width - 2 * gap + gap) / numColumns;
  const bottom = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <>
      <GlobalStyles />
      <style>{`
        body { margin: 0; background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary}; }
        header { display: flex; gap: 16px; align-items: center; padding: 14px ${gap + 4}px 12px; }
        header h1 { font-size: 20px; font-weight: 500; margin: 0 8px 0 0; }
        header b { font-weight: 500; color: ${theme.colors.text.secondary}; margin-right: 8px; }
        header .range { margin-left: auto; color: ${theme.colors.text.secondary}; }
        main { position: relative; height: ${bottom * (rowHeight + gap) + gap}px; }
        main > * { position: absolute; }
        main h2 { font-size: 16px; font-weight: 500; margin: 0; padding: 5px 4px; }
        .nothing { display: flex; align-items: center; justify-content: center; color: ${theme.colors.text.secondary}; }
      `}</style>
      <header>
        <h1>{dashboard.title}</h1>
        {variables.map(({ label, text }) => (
          <span key={label}>
            <b>{label}</b>
            {text}
          </span>
        ))}
        <span className="range">{`${new Date(from).toISOString().slice(0, 10)}, ${Math.round((to - from) / 1000)} s, times in UTC`}</span>
      </header>
      <main>
        {dashboard.panels.map((panel) => {
          const { x, y, w, h } = panel.gridPos;
          const [panelWidth, panelHeight] = [w * column - gap, h * (rowHeight + gap) - gap];
          return (
            <div key={panel.id} style={{ left: gap + x * column, top: y * (rowHeight + gap), width: panelWidth }}>
              {panel.type === "row" ? (
                <h2>{panel.title}</h2>
              ) : (
                <Panel panel={panel} width={panelWidth} height={panelHeight} />
              )}
            </div>
          );
        })}
      </main>
    </>
  );
}

createRoot(document.getElementById("page")).render(
  <ThemeContext.Provider value={theme}>
    <Page />
  </ThemeContext.Provider>,
);
