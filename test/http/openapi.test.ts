import { describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { VERSION } from "../../src/version.js";
import { useApp } from "./test-app.js";

const app = useApp("mamba2-transformer");

describe("openapi.yaml", () => {
  it("says what the routes' schemas say (npm run openapi writes it anew)", async () => {
    const contract = JSON.parse(JSON.stringify(app().server.swagger()));
    contract.info.version = VERSION;
    await expect(stringify(contract, { aliasDuplicateObjects: false, lineWidth: 120 })).toMatchFileSnapshot(
      "../../openapi.yaml",
    );
  });
});
