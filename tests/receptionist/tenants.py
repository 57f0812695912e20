"""Two businesses that share no fact, for the tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from config.tenant import TenantConfig

TUESDAY_10_AM = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
"""Ten in the morning in New York, nine in Chicago."""


def _days(*days: str, opens: str, closes: str) -> dict[str, Any]:
    return {day: [{"opens": opens, "closes": closes}] for day in days}


DENTAL = TenantConfig.model_validate(
    {
        "tenant_id": "bright-dental",
        "business_name": "Bright Smile Dental",
        "business_kind": "dental clinic",
        "numbers": ["+12125550100"],
        "time_zone": "America/New_York",
        "greeting": "Thank you for calling Bright Smile Dental. How can I help you?",
        "address": "1420 Maple Avenue, Suite 3, Albany",
        "directions": "We're opposite the public library, two blocks from the Central Avenue bus stop.",
        "hours": _days("monday", "tuesday", "wednesday", "thursday", opens="08:00", closes="17:00")
        | _days("friday", opens="08:00", closes="13:00"),
        "services": [
            {
                "name": "cleaning",
                "description": "A cleaning takes about an hour and includes an exam.",
                "price": "$95",
                "keywords": ["check-up", "checkup", "hygienist"],
            },
            {
                "name": "teeth whitening",
                "description": "Teeth whitening takes two visits of forty minutes.",
                "price": "from $250",
                "keywords": ["bleaching", "whiten"],
            },
            {
                "name": "root canal",
                "description": "Our root canal treatment is done under local anaesthetic.",
                "keywords": ["nerve treatment"],
            },
            {
                "name": "crowns and fillings",
                "description": "We make crowns and fillings in one visit.",
                "price": "from $180",
                "keywords": ["crown", "filling", "cavity"],
            },
        ],
        "faq": [
            {
                "question": "Do you take dental insurance?",
                "answer": "We accept most dental insurance plans, including Delta and Cigna.",
                "keywords": ["insurance", "Delta", "Cigna", "coverage"],
            },
            {
                "question": "Is there parking?",
                "answer": "Yes, patients park free behind the building.",
                "keywords": ["parking", "park my car", "garage"],
            },
            {
                "question": "Do you see children?",
                "answer": "Yes, we see children from the age of three.",
                "keywords": ["kids", "child", "pediatric"],
            },
            {
                "question": "What should I bring to my first visit?",
                "answer": "Please bring a photo ID and your insurance card.",
                "keywords": ["new patient", "first visit"],
            },
        ],
        "human": {"name": "Dr. Patel", "number": "+12125550111"},
        "emergency": {
            "keywords": ["severe pain", "knocked out tooth", "bleeding", "swollen face", "broken jaw"],
            "instructions": "If you have trouble breathing, hang up and call 911. Otherwise call our dentist on duty.",
            "number": "+12125550199",
        },
    }
)

PLUMBER = TenantConfig.model_validate(
    {
        "tenant_id": "rapid-plumbing",
        "business_name": "Rapid Plumbing",
        "business_kind": "plumber",
        "numbers": ["+13125550200"],
        "time_zone": "America/Chicago",
        "greeting": "Rapid Plumbing, what can I do for you?",
        "address": "77 Harbor Street, Chicago, IL 60601",
        "hours": _days("monday", "tuesday", "wednesday", "thursday", "friday", opens="07:30", closes="18:00")
        | {
            "saturday": [
                {"opens": "09:00", "closes": "12:00"},
                {"opens": "13:00", "closes": "15:30"},
            ]
        },
        "services": [
            {
                "name": "drain cleaning",
                "description": "We clear blocked drains and sewers with a camera inspection.",
                "price": "$149.50",
                "keywords": ["clogged drain", "blocked sink", "sewer", "drain"],
            },
            {
                "name": "water heater repair",
                "description": "We repair and replace water heaters of all brands.",
                "price": "from $220",
                "keywords": ["hot water", "boiler", "water heater"],
            },
            {
                "name": "leak repair",
                "description": "We find and fix leaking pipes and faucets.",
                "keywords": ["dripping faucet", "leaky tap", "leak"],
            },
        ],
        "faq": [
            {
                "question": "Do you charge a call-out fee?",
                "answer": "The call-out fee is $60, and it is waived if we do the work.",
                "keywords": ["call-out fee", "trip charge", "service fee"],
            },
            {
                "question": "Are you licensed and insured?",
                "answer": "Yes, we are licensed in Illinois and fully insured.",
                "keywords": ["licensed", "insured", "license"],
            },
            {
                "question": "How can I pay?",
                "answer": "You can pay by card, cash or check when the work is done.",
                "keywords": ["payment", "credit card", "cash"],
            },
            {
                "question": "Are you open on public holidays?",
                "answer": "On public holidays we only come out for emergencies.",
                "keywords": ["holiday", "Christmas", "Thanksgiving"],
            },
        ],
        "human": {"name": "Mike"},
        "emergency": {
            "keywords": ["burst pipe", "flooding", "smell of gas", "sewage backup", "no water"],
            "instructions": "Please shut off the main water valve now. If you smell gas, leave the house.",
            "number": "+13125550299",
        },
    }
)
