"""One vLLM engine. The first line of stdin holds its settings. Every further line holds
prompts (texts or chats) and sampling options, "reset", or a prompt during which to reset, and is answered
with one line of JSON. The engine ends with stdin."""

from __future__ import annotations

import json
import sys
from typing import Any


def answers_of(engine: Any, prompts: list[Any], sampling: dict[str, Any]) -> list[dict[str, Any]]:
    """`prompts` are texts, or chats: lists of messages."""
    from vllm import SamplingParams

    parameters = SamplingParams(**{"temperature": 0, "max_tokens": 4, **sampling})
    ask = engine.generate if isinstance(prompts[0], str) else engine.chat
    answers = ask(prompts, parameters, use_tqdm=False)
    return [
        {
            "text": answer.outputs[0].text,
            "tokens": list(answer.outputs[0].token_ids),
            "prompt_tokens": len(answer.prompt_token_ids),
            "delivered": answer.num_cached_tokens,
            "logprobs": len(answer.prompt_logprobs or []),
        }
        for answer in answers
    ]


def reset_during(engine: Any, prompt: str) -> bool:
    """Resets the caches while a request runs. Returns what vLLM says of the reset."""
    from vllm import SamplingParams

    core = engine.llm_engine
    core.add_request("running", prompt, SamplingParams(temperature=0, max_tokens=16, ignore_eos=True))
    for _ in range(4):
        core.step()  # the first steps may only wait for the lookup
    assert core.has_unfinished_requests()
    done = bool(engine.reset_prefix_cache(reset_connector=True))
    while core.has_unfinished_requests():
        core.step()
    return done


def main() -> None:
    from vllm import LLM

    settings = json.loads(sys.stdin.readline())
    options = {"enforce_eager": True, "max_model_len": 2048, "enable_prefix_caching": False, **settings["options"]}
    if settings["connector"]:
        options["kv_transfer_config"] = {
            "kv_connector": "KdnConnector",
            "kv_connector_module_path": "kdn.vllm",
            "kv_role": settings["role"],
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": settings["connector"],
        }
    engine = LLM(settings["model"], **options)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked == "reset":
            answer: Any = engine.reset_prefix_cache(reset_connector=True)
        elif isinstance(asked, str):
            answer = reset_during(engine, asked)
        else:
            answer = answers_of(engine, *asked)
        print("\nANSWERS " + json.dumps(answer), flush=True)
    del engine  # waits until all saves are stored


if __name__ == "__main__":
    main()
