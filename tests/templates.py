"""All chat templates by their names."""

from sa2va_bento.model.internvl.config import CHAT_TEMPLATES
from sa2va_bento.model.qwen_vl.config import KINDS

TEMPLATES = {
    template.name: template for template in (*CHAT_TEMPLATES, *(kind.chat_template for kind in KINDS.values()))
}
