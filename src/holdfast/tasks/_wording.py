"""The words by which replies mark their answer, offer more, check, or say that there is none.

In the larger languages; a line for each kind, so that another language is a word more.
"""

from __future__ import annotations

import re
from typing import Final

OFFER: Final = re.compile(
    r"[\W_]*(?:let me know|feel free|i hope|hope (?:this|that|it)|would you|do you|shall i|should i"
    r"|want (?:me|to)|if you(?:['’]d| would| want| need| like| prefer| are interested| have (?:any"
    r"|more|further|other|\d+ more|questions))|please (?:let|feel|note)|happy to|glad to|i can also"
    r"|i(?:['’]m| am) here|is there any|thank|good luck|don['’]t hesitate|here (?:are|is) \d* ?more"
    r"|let['’]?s try|try (?:these|this|another)|next,? try|note\b|p\.?\s?s\b|disclaimer|source"
    r"|如果(?:你|您|还)|如有|希望|需要我|要不要|请告诉|欢迎|還有|还有(?:其他|什么)|注意|注[：:]"
    r"|n['’]hésite|si vous (?:voulez|avez)|wenn (?:du|sie) (?:möchte|noch|frag|weiter)|lass(?:en)? "
    r"|si (?:quieres|necesitas|tienes)|se (?:vuoi|hai|quiser|precisar)|avísame|fammi sapere"
    r"|если (?:хотите|нужн|у вас)|もし|必要なら|궁금|필요하)",
    re.IGNORECASE,
)
CHECK: Final = re.compile(
    r"[\W_]*(?:(?:(?:quick|sanity|double)[- ]?)?check(?:ing|ed)?|(?:to |let['’]?s |let me "
    r"|we can )?"
    r"(?:double[- ]?)?(?:check|verify)|verification|proof|probe|vérification|comprobación|verifica"
    r"|verificação|проверка|验证|验算|检验|检查|驗證|驗算|検算|검산)(?![^\W_])(?!\s+out\b)",
    re.IGNORECASE,
)
HENCE: Final = re.compile(
    r"[\W_]*(?:so|thus|therefore|hence|in (?:total|conclusion)|final|the (?:final )?answer|answer"
    r"|conclusion|因此|所以|故|综上|最终|答)(?![a-z])",
    re.IGNORECASE,
)
UNKNOWN: Final = re.compile(
    r"\bcan(?:not|['’]t| ?not)\s+(?:be\s+)?(?:(?:\w+ly|possibly)\s+)?(?:determined?|calculated?"
    r"|solved?"
    r"|answer(?:ed)?|tell|compute?d?|say|know|find|found|figured?|work(?:ed)? out|give|provide)"
    r"|(?:not|n['’]t)\s+(?:have\s+|given\s+|provided?\s+)?enough (?:information|data|details?)"
    r"|insufficient (?:information|data)|\bno (?:final |single |unique |numeric\w* "
    r"|definite )?answer\b"
    r"|\bimpossible to\b|\b(?:don['’]?t|do not) know\b|\bunable to\b|\b(?:is|are) (?:unknown"
    r"|undefined"
    r"|undetermined|indeterminate|unclear)\b|\bnot sure\b|\bI give up\b"
    r"|无法(?:确定|计算|回答|得出)|無法(?:確定|計算|回答)|不能确定|不知道|信息不足|条件不足|没有答案|無解|无解",
    re.IGNORECASE,
)
DIRECT: Final = re.compile(
    r"(?:\W|\b(?:the|a|an|about|around|approximately|approx|roughly|nearly|exactly|just|only|simply"
    r"|therefore|thus|then|equal|equals|to|is|are|number|value|total|sum|option|of|at|most|least|x|n"
    r"|s|that|there|will|be|now|also|still|indeed|clearly|usd|rs|environ|ungefähr|etwa|rund|circa"
    r"|de|около|примерно|[a-e])\b|[约約是为為等于于共一就大概有])*",
    re.IGNORECASE,
)
_ANSWER: Final = (
    r"(?:answer|ans|antwort|respuesta|réponse|reponse|risposta|resposta|ответ|答案|答え|正解|回答"
    r"|정답|답|उत्तर|जवाब|الإجابة|الاجابة|الجواب)"
)
_FINAL: Final = (
    r"(?:final|correct|endgültige|finale|окончательный|правильный|最终的?|最終的?な?|最后的?|最後的?"
    r"|正确的?|正確的?|최종)"
)
_AFTER: Final = r"(?:final|finale|definitiva|correcta|correta|النهائية|النهائي)"
_IS: Final = (
    r"(?:\b(?:is|are|was|equals|comes (?:out )?to|turns out to be|(?:must|should|will) be|ist"
    r"|lautet"
    r"|beträgt|es|est|é|è)\b|[是为為]|就是|は|은|는|है|هي|هو)"
)
_ON: Final = r"[^\n.!?。:：=\d\x01#]{0,60}?"
MARK: Final = re.compile(
    r"(?=[#\x01<acfersloоп答正最结結解回정답최उजإا])(?:(?P<hash>\#{4,})|(?P<box>\x01)|(?P<tag><answer>)"
    r"|(?<![A-Za-z\u00c0-\u024f\u0400-\u052f])(?:"
    rf"(?P<final>(?:{_FINAL}[ \t]?(?:{_ANSWER}|result|结果|結果)|{_ANSWER}[ \t]{_AFTER})(?![a-z])"
    rf"(?:{_ON}(?:{_IS}|[:：=]))?)"
    rf"|(?P<said>{_ANSWER}(?![a-z])(?:{_ON}{_IS}|[\"'\x04]?\s?[=≈]|[\"']\s?:))"
    rf"|(?P<label>(?:{_ANSWER}|(?:(?<=\n)|(?<=\n\x03)|\A\x03?)(?:a|solution|result|response|答|解答?"
    r"|结果|結果|lösung|ergebnis|solución|soluzione|solução))\s?\d{0,2}"
    r"[*_\x04\"']{0,3}\s?(?:[:：]|[-–—]{1,2}(?=[ \t$\d])))))"
    r"[*_\x04\"']{0,3}[:：]?",
    re.IGNORECASE,
)
SUPPOSED: Final = re.compile(
    r"\b(?:if|whether|suppose|assum\w{1,4}|unless|check|verify|find|what|write|give|gives?)(?:\s(?:that"
    r"|the|my|our|your|final|an?))*\s\Z",
    re.IGNORECASE,
)
HOW: Final = re.compile(
    r"\W*(?:found|obtained|calculated|computed|given|derived|determined|simple|easy|reached"
    r"|to be) ",
    re.IGNORECASE,
)
NOTHING: Final = re.compile(
    r"\W*(?:none|n/?a|unknown|undefined|nothing|unclear|not (?:given|known|enough|available)|没有"
    r"|无)\b",
    re.IGNORECASE,
)
SECTION: Final = re.compile(
    r"[\W_]*(?:explanation|reason(?:ing)?|because|why|work(?:ing)?|steps?|justification|solution|how"
    r"|calculation|details|here|this|that|since|解释|解析|理由|过程|explication|erklärung)\b",
    re.IGNORECASE,
)
CORRECTED: Final = re.compile(
    r"(?:^|(?<=[.!?。]\s))[\W_]{0,4}(?:wait|hold on|oops|sorry|correction|no,|actually,|hmm"
    r"|let me (?:re"
    r"|correct|fix)|i made|等等|不对|抱歉)",
    re.IGNORECASE | re.MULTILINE,
)
NEXT: Final = re.compile(
    r"\n\s{0,8}(?!wait|hmm|but|so\b|let|check|is |did |does |now)[^\n]{25,500}?\b(?:how (?:many"
    r"|much|long"
    r"|far|old|tall|often|fast)|what (?:is|are|was|were|will|would|fraction"
    r"|percent\w*))\b[^\n?]{0,200}\?",
    re.IGNORECASE,
)
"""A paragraph that puts another problem."""
