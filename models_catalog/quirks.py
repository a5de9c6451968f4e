"""Named departures of vendors from the dialect that they nearly speak: what a row may name, and what it means.

`api_key_header` is about the connection, `no_stream_options` about every streamed request; all others say how a request
is written that its client made in another format. The formats (`proxy/formats`) know what to do; where each was seen
stands beside their constants.
"""

from collections.abc import Collection

from django.core.exceptions import ValidationError

QUIRKS = {
    # Of the connection, and of every stream.
    "api_key_header": "takes the key in the header api-key (Azure OpenAI)",
    "no_stream_options": "refuses stream_options; sends usage in the last chunk unasked",
    # Of chat, what it takes beyond what nearly every vendor does.
    "developer_role": "has the role developer",
    "max_completion_tokens": "wants max_completion_tokens in place of max_tokens",
    "cache_control": "takes Anthropic's cache_control on parts and tools",
    "custom_tools": "has tools of free text",
    "allowed_tools": "has the tool choice allowed_tools",
    "platform_fields": "takes store, metadata, user, prompt_cache_key and service_tier",
    "sampling_extras": "takes top_k, min_p and repetition_penalty",
    "random_seed": "calls the seed random_seed",
    "tool_images": "takes images in tool messages",
    "video_url": "takes videos",
    "file_url": "takes files by URL",
    "extra_content": "wants thought signatures back in extra_content (Gemini's OpenAI endpoint)",
    # Of chat, its thoughts.
    "reasoning_content": "wants its thoughts back in reasoning_content",
    "reasoning_details": "wants its thoughts back in reasoning_details",
    "thinking_parts": "wants its thoughts back as parts of the content",
    "reasoning_object": "takes the object reasoning in place of reasoning_effort",
    "all_efforts": "knows every reasoning_effort from none to xhigh",
    "on_off_effort": "knows the reasoning_effort none and high only",
    "no_reasoning_effort": "refuses reasoning_effort",
    "enable_thinking": "switches thoughts by enable_thinking",
    "chat_template_kwargs": "switches thoughts by chat_template_kwargs.enable_thinking",
    "thinking_type": "switches thoughts by thinking.type",
    # Of chat, what it does not take.
    "no_json_schema": "knows json_object, and no json_schema",
    "short_tool_ids": "wants tool call IDs of exactly nine letters and digits",
    "tool_ids_40": "wants tool call IDs of at most 40 characters",
    "string_content": "wants texts as one string, not as parts",
    # Of Messages.
    "adaptive_thinking": "thinks as much as it sees fit, whatever its name says",
    "budget_thinking": "thinks within a budget of tokens, whatever its name says",
    "system_messages": "takes system messages in the middle of the conversation",
    "unsigned_thinking": "wants its thoughts back, and signs none",
}


def validate_quirks(value: Collection[object]) -> None:
    unknown = [str(name) for name in value if name not in QUIRKS]
    if unknown:
        raise ValidationError(f"There is no quirk {', '.join(unknown)}. There are: {', '.join(QUIRKS)}.")
