import { Template } from "@huggingface/jinja";
import type { ChatFormat } from "../../core/model-info.js";
import { MblmError } from "../../errors.js";
import { isLeftOut } from "../schemas/nullable.js";
import { requireUnicode } from "../text.js";
import type { ChatBody } from "./chat-schema.js";

/** Turns conversations into prompts by the model's own template. */
export class ChatTemplate {
  readonly #template: Template;

  /** @throws MblmError `bundle_invalid` when the template cannot be parsed */
  constructor(format: ChatFormat) {
    try {
      this.#template = new Template(format.template);
    } catch (cause) {
      throw new MblmError("bundle_invalid", `the model's chat template is wrong: ${(cause as Error).message}`, {
        cause,
      });
    }
  }

  /** @throws MblmError `invalid_request` for text that is no Unicode, and when the template refuses the messages */
  render(messages: ChatBody["messages"], addGenerationPrompt: boolean): string {
    const flat = messages.map(({ role, name, content }, i) => {
      const text = textOf(content);
      requireUnicode(`messages.${i}.content`, text);
      if (isLeftOut(name)) return { role, content: text };
      requireUnicode(`messages.${i}.name`, name);
      return { role, name, content: text };
    });
    try {
      return this.#template.render({ messages: flat, add_generation_prompt: addGenerationPrompt });
    } catch (cause) {
      const message = `messages: the model's chat template refuses them: ${(cause as Error).message}`;
      throw new MblmError("invalid_request", message, { field: "messages", cause });
    }
  }
}

/** Conversations with images do not come here. */
function textOf(content: ChatBody["messages"][number]["content"]): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}
